//! The ways to press Create.

use serde_json::json;

use crate::app::{App, SOON};
use crate::keys::{CONTROL, ENTER};

fn sessions(app: &App) -> usize {
    app.invoke("list_sessions", &json!({}))["sessions"]
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn a_double_click_on_create_makes_one_session() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.fill_in("once", None);
    let twice = "
        const button = document.querySelector('[data-testid=create-session]');
        button.click();
        button.click();
    ";
    app.window.execute(twice, &[]).unwrap();
    app.wait_for_terminal();
    let record = app.recorded();
    assert_eq!(
        record
            .asked
            .iter()
            .filter(|asked| asked.command == "create_session")
            .count(),
        1
    );
    assert_eq!(sessions(&app), 1);
    assert_eq!(app.window.count("[data-testid=session-row]").unwrap(), 1);
}

#[test]
fn a_session_is_created_and_used_with_the_keyboard_alone() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let keys = app.window.driver();
    app.window
        .wait_for("[data-testid=first-run]", SOON)
        .unwrap();
    keys.press(&[CONTROL], "n").unwrap();
    let focus = "return document.activeElement.name ?? null";
    app.window
        .wait("the focus on the project's name", SOON, |window| {
            Ok((window.execute(focus, &[])? == "project_name").then_some(()))
        })
        .unwrap();
    keys.press(&[], &format!("by-keyboard{ENTER}")).unwrap();
    app.wait_for_terminal();
    let in_terminal = "return document.activeElement.closest('[data-testid=terminal]') !== null";
    app.window
        .wait("the focus in the terminal", SOON, |window| {
            Ok((window.execute(in_terminal, &[])? == true).then_some(()))
        })
        .unwrap();
    keys.press(&[], &format!("echo typed > by-keyboard.txt{ENTER}"))
        .unwrap();
    let id = app.recorded().heard[0].session().to_owned();
    app.window
        .wait("the file that was typed", SOON, |_| {
            let answer = app.invoke(
                "read_file",
                &json!({"id": id, "path": "/workspace/by-keyboard.txt"}),
            );
            Ok((answer["content"] == "typed\n").then_some(()))
        })
        .unwrap();
    let session = &app.invoke("session_status", &json!({"id": id}))["session"];
    assert_eq!(session["project_name"], "by-keyboard");
    assert_eq!(sessions(&app), 1);
}

#[test]
fn a_session_without_a_network_is_chosen_in_the_dialog_and_has_its_terminal_and_files() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.fill_in("alone", None);
    app.press("[data-testid=more]");
    app.settle();
    app.picture("new-session-more");
    let choose = "
        const field = document.querySelector('select[name=network]');
        field.value = 'none';
        field.dispatchEvent(new Event('change', { bubbles: true }));
    ";
    app.window.execute(choose, &[]).unwrap();
    app.press("[data-testid=create-session]");
    app.wait_for_terminal();
    let id = app.recorded().heard[0].session().to_owned();
    let session = &app.invoke("session_status", &json!({"id": id}))["session"];
    assert_eq!(session["network"], "none");
    let (container, mode) = (format!("cove-{id}"), "{{.HostConfig.NetworkMode}}");
    let inspect = ["inspect", "--format", mode, &container];
    assert_eq!(app.engine.docker(&inspect).unwrap(), "none");
    let listed = app.invoke("list_dir", &json!({"id": id, "path": "/workspace"}));
    assert_eq!(listed["ok"], true, "{listed}");
}
