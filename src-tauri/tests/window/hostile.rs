//! Whatever a page sends: thousands of made-up arguments to every command, through the real window.
//!
//! Left out is what would wait for somebody at the screen: `choose_archive` opens the system's dialog
//! whatever it is sent. `export_session` opens one only for a session that exists, and no made-up id is
//! one; `leave_app` ends the app only for a word that is never made up.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use cove_core::error::{ErrorCode, ErrorReport};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Map, Value, json};

use crate::app::{App, figure};

/// Calls per command.
const CALLS: usize = 120;
/// Calls that leave the page at once.
const BATCH: usize = 240;
/// Sets the seed, to send again what was sent before.
const SEED: &str = "COVE_TEST_SEED";

/// Stands for what JSON has no word for.
const UNDEFINED: &str = "\u{1}undefined";

const SEND: &str = "
    const [calls, absent, done] = arguments;
    const present = (value) => (value === absent ? undefined : value);
    const revive = (value) =>
        value === null || typeof value !== 'object' || Array.isArray(value)
            ? present(value)
            : Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, present(inner)]));
    const send = ([command, parameters]) =>
        window.__TAURI_INTERNALS__.invoke(command, revive(parameters)).then(
            (answer) => [true, answer],
            (answer) => [false, answer],
        );
    // As a text, because the driver takes some objects for words of its own.
    Promise.all(calls.map(send)).then((answers) => done(JSON.stringify(answers)));
";

/// Every command, as the app itself lists them.
fn commands() -> Vec<&'static str> {
    let source = include_str!("../../src/commands.rs");
    let (_, list) = source.split_once("\ncommands![").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let names = list.split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).collect()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        2 => select(vec![
            "", " ", "undefined", "null", "NaN", "/workspace", "/workspace/..", "..", "utf-8", "base64",
            "\0", "\u{1b}[2J", "\u{202e}", "\u{feff}", "日本", "<img src=x onerror=alert(1)>", "__proto__",
            "__CHANNEL__:1", "__CHANNEL__:-1", "__CHANNEL__:99999999999999999999", "constructor",
        ]).prop_map(str::to_owned),
        1 => (1_usize..20_000).prop_map(|length| "x".repeat(length)),
        1 => any::<u128>().prop_map(|id| {
            let hex = format!("{id:032x}");
            format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
        }),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        1 => Just(Value::Null),
        1 => Just(json!(UNDEFINED)),
        1 => any::<bool>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => text().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Arguments: mostly names that some command knows, with anything in them; sometimes no object at all.
fn parameters() -> impl Strategy<Value = Value> {
    let names = select(vec![
        "id",
        "id",
        "id",
        "id",
        "request",
        "path",
        "paths",
        "from",
        "to",
        "into",
        "kind",
        "trash",
        "content",
        "encoding",
        "revision",
        "terminal_id",
        "data",
        "cols",
        "rows",
        "bytes",
        "on_output",
        "settings",
        "name",
        "image",
        "project_name",
        "keep_volume",
        "choice",
    ]);
    let pair = (names.prop_map(str::to_owned), anything());
    let odd = (text(), anything());
    let pairs = prop::collection::vec(prop_oneof![6 => pair, 1 => odd], 0..7);
    prop_oneof![
        9 => pairs.prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        1 => anything(),
    ]
}

/// A refusal has exactly the one shape, with a code that is known and texts that say something.
#[track_caller]
fn check_refusal(sent: &Value, answer: &Value) -> ErrorCode {
    let report: ErrorReport = serde_json::from_value(answer.clone())
        .unwrap_or_else(|error| panic!("{sent}: {error}: {answer}"));
    let keys: BTreeSet<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let shape = BTreeSet::from(["ok", "error", "message", "hint", "details"]);
    assert_eq!(keys, shape, "{sent}: {answer}");
    assert!(
        !report.ok && !report.message.is_empty() && !report.hint.is_empty(),
        "{sent}: {answer}"
    );
    assert_ne!(report.error, ErrorCode::Internal, "{sent}: {answer}");
    report.error
}

#[test]
fn whatever_is_sent_to_whatever_command_is_answered_in_one_of_two_shapes() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(now.as_secs());
    figure("seed of what is sent", seed);
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    });
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        for command in commands
            .iter()
            .filter(|command| **command != "choose_archive")
        {
            let made_up = parameters().new_tree(&mut runner).unwrap().current();
            calls.push(json!([command, made_up]));
        }
    }
    app.window.execute("window.__same = true", &[]).unwrap();

    let (mut done, mut refused) = (0, BTreeSet::new());
    for batch in calls.chunks(BATCH) {
        let answers = app
            .window
            .execute_async(SEND, &[json!(batch), json!(UNDEFINED)])
            .unwrap();
        let answers: Vec<(bool, Value)> = serde_json::from_str(answers.as_str().unwrap()).unwrap();
        assert_eq!(answers.len(), batch.len());
        for (sent, (is_done, answer)) in batch.iter().zip(&answers) {
            if *is_done {
                assert_eq!(answer["ok"], true, "{sent}: {answer}");
                done += 1;
            } else {
                refused.insert(format!("{:?}", check_refusal(sent, answer)));
            }
        }
    }
    figure("made-up calls", calls.len());
    figure("of them done", done);
    figure("refused with", format!("{refused:?}"));

    // It is the same page of the same app, and it works.
    assert_eq!(
        app.window.execute("return window.__same", &[]).unwrap(),
        true
    );
    let listed = app.invoke("list_sessions", &json!({}));
    assert_eq!(listed["ok"], true, "{listed}");
    // A request that happened to be right made a session.
    for session in listed["sessions"].as_array().unwrap() {
        let answer = app.invoke("delete_session", &json!({"id": session["session_id"]}));
        assert_eq!(answer["ok"], true, "{answer}");
    }
    let listed = app.invoke("list_sessions", &json!({}));
    assert_eq!(listed["ok"], json!(true));
    assert_eq!(listed["sessions"], json!([]));
    let left = app.engine.docker(&[
        "ps",
        "--all",
        "--quiet",
        "--filter",
        "label=dev.cove.session",
    ]);
    assert_eq!(left.unwrap().trim(), "");
}
