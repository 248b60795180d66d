//! What the commands answer to what they should never be asked.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::app::{App, SOON};

/// Every command that is about one session, with the arguments that it needs besides the id.
fn id_commands() -> Vec<(&'static str, Value)> {
    vec![
        ("session_status", json!({})),
        ("cancel_session", json!({})),
        ("retry_session", json!({})),
        ("open_session", json!({})),
        ("stop_session", json!({})),
        ("session_stats", json!({})),
        ("session_stats", json!({"on_figures": "__CHANNEL__:1"})),
        ("read_log", json!({"tail": 10})),
        ("read_log", json!({"tail": 10, "on_log": "__CHANNEL__:1"})),
        ("dismiss_note", json!({})),
        ("end_processes", json!({})),
        ("keep_session", json!({})),
        ("notify_user", json!({})),
        ("delete_session", json!({})),
        ("list_dir", json!({"path": "/workspace"})),
        ("read_file", json!({"path": "/workspace/a"})),
        (
            "write_file",
            json!({"path": "/workspace/a", "content": "", "encoding": "utf-8"}),
        ),
        (
            "create_entry",
            json!({"into": "/workspace", "name": "a", "kind": "file"}),
        ),
        (
            "move_entry",
            json!({"from": "/workspace/a", "to": "/workspace/b"}),
        ),
        (
            "copy_entry",
            json!({"from": "/workspace/a", "to": "/workspace/b"}),
        ),
        ("delete_entries", json!({"paths": ["/workspace/a"]})),
        ("restore_entries", json!({"trash": "0123456789abcdef"})),
        ("find_files", json!({"query": "a"})),
        (
            "search_files",
            json!({"query": "a", "on_match": "__CHANNEL__:1"}),
        ),
        ("cancel_search", json!({"search_id": "s"})),
        (
            "keep_draft",
            json!({"draft": {"path": "/workspace/a", "name": "a", "content": "", "charset": null, "revision": null}}),
        ),
        ("read_drafts", json!({})),
        ("drop_draft", json!({"path": "/workspace/a"})),
        (
            "open_terminal",
            json!({"cols": 80, "rows": 24, "on_output": "__CHANNEL__:1"}),
        ),
        ("write_terminal", json!({"terminal_id": "t", "data": "x"})),
        (
            "resize_terminal",
            json!({"terminal_id": "t", "cols": 80, "rows": 24}),
        ),
        ("ack_terminal", json!({"terminal_id": "t", "bytes": 1})),
        ("close_terminal", json!({"terminal_id": "t"})),
        ("list_ports", json!({})),
        ("forward_port", json!({"port": 8000})),
        ("unforward_port", json!({"port": 8000})),
        ("open_port", json!({"port": 8000})),
    ]
}

/// Checks that an answer is a failure of this code in the one shape and in no other.
#[track_caller]
fn check_failure(asked: &str, answer: &Value, code: &str) {
    assert_eq!(answer["error"], code, "{asked}: {answer}");
    let keys: BTreeSet<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        BTreeSet::from(["ok", "error", "message", "hint", "details"]),
        "{asked}: {answer}"
    );
    assert_eq!(answer["ok"], false, "{asked}: {answer}");
    assert!(answer["details"].is_object(), "{asked}: {answer}");
    for text in ["message", "hint"] {
        assert!(
            answer[text].as_str().is_some_and(|text| !text.is_empty()),
            "{asked}: {answer}"
        );
    }
}

/// Checks that exactly these fields were refused.
#[track_caller]
fn check_fields(app: &App, parameters: &Value, fields: &[&str]) {
    let answer = app.invoke("create_session", parameters);
    check_failure(&parameters.to_string(), &answer, "VALIDATION_ERROR");
    let refused: Vec<&str> = answer["details"]["fields"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(refused, fields, "{parameters}: {answer}");
}

#[test]
fn a_request_that_is_not_acceptable_is_refused_field_by_field() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    check_fields(&app, &json!({"request": {}}), &["workspace_id"]);
    check_fields(&app, &json!({}), &["request"]);
    check_fields(&app, &json!({"request": null}), &["request"]);
    check_fields(&app, &json!({"request": [1]}), &["request"]);
    check_fields(&app, &json!({"request": "x"}), &["request"]);
    check_fields(
        &app,
        &json!({"request": {"workspace_id": " "}}),
        &["workspace_id"],
    );
    check_fields(
        &app,
        &json!({"request": {"workspace_id": "a\u{7}"}}),
        &["workspace_id"],
    );
    check_fields(
        &app,
        &json!({"request": {"workspace_id": "a".repeat(129)}}),
        &["workspace_id"],
    );
    let wrong_types = json!({"request": {
        "workspace_id": 1, "image": {}, "template": [], "project_name": true, "description": 2.5,
    }});
    check_fields(
        &app,
        &wrong_types,
        &[
            "description",
            "image",
            "project_name",
            "template",
            "workspace_id",
        ],
    );
    let wrong_values = json!({"request": {
        "workspace_id": "w", "image": "Not An Image", "template": "cobol", "project_name": "p".repeat(81),
        "description": "d".repeat(2_001),
    }});
    check_fields(
        &app,
        &wrong_values,
        &["description", "image", "project_name", "template"],
    );

    let answer = app.invoke("no_such_command", &json!({}));
    check_failure("no_such_command", &answer, "UNKNOWN_COMMAND");
    let sessions = app.invoke("list_sessions", &json!({}));
    assert_eq!(sessions["ok"], json!(true));
    assert_eq!(sessions["sessions"], json!([]));
}

#[test]
fn the_dialog_shows_a_refusal_at_its_field_and_nowhere_else() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.fill_in("refused", Some("Not An Image"));
    app.press("[data-testid=create-session]");
    app.window
        .wait_for("input[name=image][aria-invalid=true]", SOON)
        .unwrap();
    app.picture("refused-field");
    assert_eq!(app.window.count("[aria-invalid=true]").unwrap(), 1);
    assert!(!app.window.has("[data-testid=create-error]").unwrap());
    assert!(!app.window.has("[data-testid=progress-modal]").unwrap());
    assert!(!app.window.has("[data-sonner-toast]").unwrap());
}

#[test]
fn an_id_that_is_none_is_refused_by_every_command() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let stranger = "01234567-89ab-4def-8123-456789abcdef";
    let cases = [
        (None, "SESSION_ID_MISSING"),
        (Some(Value::Null), "SESSION_ID_MISSING"),
        (Some(json!("")), "SESSION_ID_MISSING"),
        (Some(json!("undefined")), "SESSION_ID_MISSING"),
        (Some(json!("null")), "SESSION_ID_MISSING"),
        (Some(json!(7)), "VALIDATION_ERROR"),
        (Some(json!({"id": stranger})), "VALIDATION_ERROR"),
        (Some(json!("no-uuid")), "SESSION_NOT_FOUND"),
        (Some(json!(stranger)), "SESSION_NOT_FOUND"),
    ];
    for (command, others) in id_commands() {
        for (id, code) in &cases {
            let mut parameters = others.clone();
            if let Some(id) = id {
                parameters["id"] = id.clone();
            }
            let answer = app.invoke(command, &parameters);
            if command == "delete_session" && *id == Some(json!(stranger)) {
                // What has vanished already is as good as deleted.
                assert_eq!(answer["ok"], true, "{answer}");
            } else {
                check_failure(&format!("{command} {parameters}"), &answer, code);
            }
        }
    }
}

#[test]
fn a_valid_request_is_answered_with_an_id_and_starting() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let answer = app.invoke(
        "create_session",
        &json!({"request": {"workspace_id": "contract"}}),
    );
    let id = answer["session_id"].as_str().unwrap().to_owned();
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(answer["phase"], "Starting", "{answer}");
    assert!(answer["message"].is_string(), "{answer}");
    app.expect_ready(&id);

    let status = app.invoke("session_status", &json!({"id": id}));
    for (field, expected) in [
        ("ok", json!(true)),
        ("session_id", json!(id)),
        ("ready", json!(true)),
        ("phase", json!("Ready")),
        ("state", json!("ready")),
        ("error", Value::Null),
    ] {
        assert_eq!(status[field], expected, "{field}: {status}");
    }
    assert_eq!(status["progress"]["percent"], 100.0, "{status}");
    assert_eq!(status["seq"], app.end_of(&id, 0).payload["seq"], "{status}");
}

#[test]
fn no_command_with_an_id_that_is_none_ever_leaves_the_page() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("ids");
    let mut asked = app.recorded().asked;
    app.reload();
    app.wait_for_terminal();
    app.window
        .click("header [aria-label^='Actions for']")
        .unwrap();
    app.window.click("[data-action=remove]").unwrap();
    app.press("[data-testid=delete-dialog] [data-testid=confirm]");
    app.window
        .wait_gone(&format!("[data-session-id='{id}']"), SOON)
        .unwrap();
    asked.extend(app.recorded().asked);

    let about_sessions: Vec<_> = id_commands()
        .into_iter()
        .map(|(command, _)| command)
        .collect();
    let ids: Vec<_> = asked
        .iter()
        .filter(|asked| about_sessions.contains(&asked.command.as_str()))
        .map(|asked| (asked.command.as_str(), &asked.parameters["id"]))
        .collect();
    for command in [
        "list_dir",
        "open_terminal",
        "session_status",
        "delete_session",
    ] {
        assert!(
            ids.iter().any(|(name, _)| *name == command),
            "`{command}` was not seen: {ids:?}"
        );
    }
    for (command, named) in &ids {
        assert_eq!(**named, json!(id), "{command}");
    }
}
