//! What a user does to a session from its menu and its row.

use serde_json::json;

use crate::app::{App, SOON};
use crate::keys::{CONTROL, DELETE, ENTER, F2};

/// Chooses from the menu of the session that is looked at.
fn choose(app: &App, action: &str) {
    app.press("header [aria-label^='Actions for']");
    app.press(&format!("[data-action={action}]"));
}

fn row(id: &str) -> String {
    format!("[data-testid=session-row][data-session-id='{id}']")
}

/// Waits until the session that is looked at has this name.
fn wait_for_title(app: &App, name: &str) {
    let titles = "return [...document.querySelectorAll('main > header h1')].map((title) => title.textContent)";
    app.window
        .wait(&format!("the title {name}"), SOON, |window| {
            let shown = window.execute(titles, &[])?;
            Ok((shown == json!([name])).then_some(()))
        })
        .unwrap();
}

fn type_anew(app: &App, text: &str) {
    app.settle();
    let driver = app.window.driver();
    driver.press(&[CONTROL], "a").unwrap();
    driver.press(&[], text).unwrap();
}

/// The file that the first session began with is in this one.
fn check_kept(app: &App, id: &str) {
    let parameters = json!({"id": id, "path": "/workspace/kept.txt"});
    let read = app.invoke("read_file", &parameters);
    assert_eq!(read["content"], "kept", "{read}");
}

#[test]
fn a_session_is_renamed_duplicated_rebuilt_and_deleted_but_for_its_files() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("first");
    app.invoke(
        "write_file",
        &json!({"id": id, "path": "/workspace/kept.txt", "content": "kept", "encoding": "utf-8"}),
    );

    app.press(&format!("{} button.main", row(&id)));
    app.window.driver().press(&[], &F2.to_string()).unwrap();
    app.window
        .wait_for("[data-testid=rename-dialog]", SOON)
        .unwrap();
    app.picture("rename");
    type_anew(&app, &format!("second{ENTER}"));
    app.window
        .wait_gone("[data-testid=rename-dialog]", SOON)
        .unwrap();
    wait_for_title(&app, "second");

    choose(&app, "duplicate");
    app.window
        .wait_for("[data-testid=duplicate-dialog]", SOON)
        .unwrap();
    app.picture("duplicate");
    app.press("[data-testid=duplicate-dialog] [data-testid=submit]");
    wait_for_title(&app, "second copy");
    let copy = app
        .window
        .wait("the copy's end", SOON, |_| {
            let heard = app.recorded().heard;
            let mut ends = heard
                .iter()
                .filter(|heard| heard.session() != id && heard.is_terminal());
            Ok(ends
                .next()
                .map(|end| (end.name.clone(), end.session().to_owned())))
        })
        .unwrap();
    assert_eq!(copy.0, "session:ready");
    check_kept(&app, &copy.1);

    app.window
        .wait_gone("[data-testid=progress-modal]", SOON)
        .unwrap();
    choose(&app, "rebuild");
    app.window
        .wait_for("[data-testid=rebuild-dialog]", SOON)
        .unwrap();
    app.picture("rebuild");
    app.press("[data-testid=rebuild-dialog] [data-testid=submit]");
    assert_eq!(app.end_of(&copy.1, 1).name, "session:ready");
    check_kept(&app, &copy.1);

    app.window
        .wait_gone("[data-testid=progress-modal]", SOON)
        .unwrap();
    app.press(&format!("{} button.main", row(&copy.1)));
    app.window.driver().press(&[], &DELETE.to_string()).unwrap();
    let usage = app
        .window
        .wait_text("[data-testid=usage]", SOON, |text| {
            text.contains("last changed")
        })
        .unwrap();
    assert!(usage.starts_with("4 B in /workspace"), "{usage}");
    app.picture("delete");
    app.press("[data-testid=keep-volume]");
    app.press("[data-testid=delete-dialog] [data-testid=confirm]");
    app.window
        .wait_for(&format!("[data-testid=kept-files] {}", row(&copy.1)), SOON)
        .unwrap();
    app.window
        .wait_gone("[data-testid=delete-dialog]", SOON)
        .unwrap();
    app.press(&format!("{} button.main", row(&copy.1)));
    app.settle();
    app.picture("kept");
    app.press("[data-testid=way-on]");
    assert_eq!(app.end_of(&copy.1, 2).name, "session:ready");
    check_kept(&app, &copy.1);
}
