//! What a caller may send: any JSON at all. It is taken, or refused in the one shape of errors, and
//! refused for the fields that are wrong and for no others.

use std::collections::BTreeSet;

use cove_core::error::{Error, ErrorCode};
use cove_core::image::ImageReference;
use cove_core::labels;
use cove_core::session::{CreateSession, SessionId};
use cove_core::settings::Settings;
use cove_core::template;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::cases;

const FIELDS: [&str; 5] = [
    "workspace_id",
    "template",
    "image",
    "project_name",
    "description",
];

const SETTINGS: [&str; 5] = [
    "time_limit_s",
    "cpu_limit",
    "memory_limit_mb",
    "pids_limit",
    "forward_ports",
];

/// Texts that are long, empty, invisible, or written from right to left.
fn text() -> impl Strategy<Value = String> {
    let mark = select(vec![
        "\0",
        "\u{7}",
        "\u{1b}[2J",
        "\n",
        "\r\n",
        "\t",
        "\u{85}",
        "\u{200b}",
        "\u{200e}",
        "\u{202e}",
        "\u{2066}",
        "\u{2069}",
        "\u{feff}",
        "undefined",
        "null",
        "日本",
        "👩‍👩‍👧",
        "e\u{301}",
        "\"",
        "\\",
    ]);
    prop_oneof![
        3 => any::<String>(),
        3 => "[ a-zA-Z0-9._/:@-]{0,20}",
        2 => ("[a-z]{0,3}", mark, "[a-z]{0,3}").prop_map(|(before, mark, after)| before + mark + &after),
        1 => select(vec![1_usize, 79, 80, 81, 127, 128, 129, 1_999, 2_000, 2_001, 100_000])
            .prop_flat_map(|length| select(vec!["a", "é", "👩"]).prop_map(move |c| c.repeat(length))),
        1 => " {0,3}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    let nested = scalar().prop_recursive(5, 40, 6, |inner| {
        let key = prop_oneof![select(FIELDS.to_vec()).prop_map(str::to_owned), text()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    });
    // JSON that comes through a parser is at most 128 levels deep.
    let deep = (any::<bool>(), 100_usize..128).prop_map(|(is_list, depth)| {
        (0..depth).fold(Value::Null, |inner, _| {
            if is_list {
                json!([inner])
            } else {
                json!({ "request": inner })
            }
        })
    });
    prop_oneof![9 => nested, 1 => deep]
}

/// A request that is right or wrong field by field.
fn request() -> impl Strategy<Value = Map<String, Value>> {
    let templates: Vec<_> = template::all().iter().map(|one| one.id.as_str()).collect();
    let image = select(vec![
        "python",
        "ghcr.io/a/b:1",
        "[::1]:5000/a",
        "",
        " ",
        "Not An Image",
        "cove.invalid/x",
    ]);
    let field = |good: BoxedStrategy<Value>| prop_oneof![3 => Just(None), 6 => good.prop_map(Some), 2 => text().prop_map(|text| Some(text.into())), 1 => anything().prop_map(Some)];
    let word = || "[a-zA-Z0-9 .-]{1,20}".prop_map(Value::from).boxed();
    (
        prop_oneof![9 => word().prop_map(Some), 3 => field(word())],
        field(select(templates).prop_map(Value::from).boxed()),
        field(image.prop_map(Value::from).boxed()),
        field(word()),
        field("[a-z \n\t]{0,30}".prop_map(Value::from).boxed()),
        prop::option::weighted(0.1, (text(), scalar())),
    )
        .prop_map(
            |(workspace_id, template, image, project_name, description, more)| {
                let values = [workspace_id, template, image, project_name, description];
                let named = FIELDS.into_iter().map(str::to_owned).zip(values);
                let present = named.filter_map(|(name, value)| Some((name, value?)));
                present.chain(more).collect()
            },
        )
}

/// Returns the fields that have to be refused, by rules that are stated here anew.
fn wrong_fields(request: &Map<String, Value>) -> BTreeSet<String> {
    let is_hidden = |c: char| {
        c.is_control()
            || "\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}".contains(c)
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2061}'..='\u{2069}').contains(&c)
    };
    let is_right = |name: &str, value: Option<&Value>| match (name, value) {
        ("workspace_id", None | Some(Value::Null)) => false,
        (_, None | Some(Value::Null)) => true,
        ("workspace_id", Some(Value::String(text))) => {
            !text.trim().is_empty() && text.chars().count() <= 128 && !text.chars().any(is_hidden)
        }
        ("project_name", Some(Value::String(text))) => {
            text.chars().count() <= 80 && !text.chars().any(is_hidden)
        }
        ("description", Some(Value::String(text))) => {
            text.chars().count() <= 2_000
                && !text.replace(['\n', '\r', '\t'], "").chars().any(is_hidden)
        }
        ("template", Some(Value::String(text))) => {
            text.is_empty() || template::find(text).is_some()
        }
        ("image", Some(Value::String(text))) => {
            text.trim().is_empty() || text.parse::<ImageReference>().is_ok()
        }
        _ => false,
    };
    let wrong = FIELDS
        .into_iter()
        .filter(|name| !is_right(name, request.get(*name)));
    let unknown = request
        .keys()
        .map(String::as_str)
        .filter(|name| !FIELDS.contains(name));
    wrong.chain(unknown).map(str::to_owned).collect()
}

/// The one shape: exactly these keys, of these types, and texts that say something.
#[track_caller]
fn check_shape(error: &Error) -> ErrorCode {
    let report = error.report();
    let wire = serde_json::to_value(&report).unwrap();
    let keys: Vec<_> = wire
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, ["details", "error", "hint", "message", "ok"]);
    assert_eq!(wire["ok"], false);
    assert_eq!(wire["error"], json!(error.code()));
    assert!(wire["details"].is_object(), "{wire}");
    assert!(
        !report.message.trim().is_empty() && !report.hint.trim().is_empty(),
        "{wire}"
    );
    report.error
}

#[track_caller]
fn check_request(request: &Value) {
    let wrong = match request {
        Value::Object(fields) => wrong_fields(fields),
        _ => BTreeSet::from(["request".to_owned()]),
    };
    match CreateSession::from_json(request) {
        Ok(asked) => {
            assert!(wrong.is_empty(), "accepted in spite of {wrong:?}");
            let (id, created) = (SessionId::random(), "2026-01-02T03:04:05Z".to_owned());
            let written = labels::of(id, &asked, &created);
            assert_eq!(labels::read(&written), Some((id, asked, created)));
        }
        Err(error) => {
            assert_eq!(check_shape(&error), ErrorCode::ValidationError);
            let details = error.report().details;
            let refused = details["fields"].as_object().unwrap();
            let named: BTreeSet<_> = refused.keys().cloned().collect();
            assert_eq!(named, wrong);
            assert!(
                refused
                    .values()
                    .all(|problem| problem.as_str().is_some_and(|text| !text.is_empty()))
            );
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_request_is_refused_for_exactly_what_is_wrong_with_it_and_else_survives_on_labels(request in request()) {
        check_request(&Value::from(request));
    }

    #[test]
    fn any_json_is_a_request_or_is_refused_in_the_one_shape(request in anything()) {
        check_request(&request);
    }

    #[test]
    fn an_id_is_a_uuid_or_is_refused_as_missing_or_unknown(text in prop_oneof![text(), "[0-9a-fA-F{}-]{30,40}", any::<u128>().prop_map(uuid_like)]) {
        match text.parse::<SessionId>() {
            Ok(id) => {
                let text = text.trim().to_lowercase();
                let digits = text.trim_start_matches("urn:uuid:").replace(['-', '{', '}'], "");
                prop_assert_eq!(id.to_string().replace('-', ""), digits);
                prop_assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
            }
            Err(error) => {
                let is_missing = matches!(text.trim(), "" | "undefined" | "null");
                let expected = if is_missing { ErrorCode::SessionIdMissing } else { ErrorCode::SessionNotFound };
                prop_assert_eq!(check_shape(&error), expected);
            }
        }
    }

    #[test]
    fn settings_are_within_their_limits_or_refused_in_the_one_shape(
        time_limit_s in prop_oneof![any::<u64>(), 0_u64..100],
        cpu_limit in prop::option::of(prop_oneof![any::<f64>(), 0.0..300.0]),
        memory_limit_mb in prop::option::of(prop_oneof![any::<u64>(), 0_u64..100]),
        pids_limit in prop_oneof![any::<u64>(), 0_u64..100],
        stop_grace_s in prop_oneof![any::<u64>(), 0_u64..1_000],
        idle_stop_minutes in prop::option::of(prop_oneof![any::<u64>(), 0_u64..20_000]),
        forward_ports in any::<bool>(),
    ) {
        let settings = Settings {
            time_limit_s,
            cpu_limit,
            memory_limit_mb,
            pids_limit,
            stop_grace_s,
            idle_stop_minutes,
            forward_ports,
        };
        match settings.check() {
            Ok(settings) => {
                // What is accepted is kept, and read again at the next launch: to the billionth of
                // a processor, which is the engine's own unit.
                let kept = serde_json::to_string(&settings).unwrap();
                let read: Settings = serde_json::from_str(&kept).unwrap();
                let billionths = |settings: &Settings| settings.cpu_limit.map(|cpus| (cpus * 1e9).round() / 1e9);
                prop_assert_eq!(billionths(&read), billionths(&settings));
                prop_assert_eq!(Settings { cpu_limit: None, ..read }, Settings { cpu_limit: None, ..settings });
                prop_assert!(settings.memory_limit_mb.is_none_or(|mb| mb.checked_mul(1024 * 1024).is_some()));
            }
            Err(error) => prop_assert_eq!(check_shape(&error), ErrorCode::ValidationError),
        }
    }

    #[test]
    fn settings_of_any_types_are_taken_or_refused_and_never_a_crash(
        fields in prop::collection::vec((select(SETTINGS.to_vec()), anything()), 0..3),
    ) {
        let fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let read = serde_json::from_value::<Settings>(Value::from(fields));
        if let Ok(Err(error)) = read.map(Settings::check) {
            prop_assert_eq!(check_shape(&error), ErrorCode::ValidationError);
        }
    }
}

fn uuid_like(id: u128) -> String {
    let hex = format!("{id:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
