//! Failures: each is told once, with what to do next, and can be retried.

use cove_testbed::TestImage;
use serde_json::json;

use crate::app::{App, SOON};

/// Counts the innermost elements of the page that hold this text, seen or not.
const COUNT: &str = "
    const holds = (element) => element.textContent.includes(arguments[0]);
    return [...document.body.querySelectorAll('*')].filter((element) => holds(element) && ![...element.children].some(holds)).length;
";

#[test]
fn a_missing_image_is_told_once_and_a_retry_finds_it_with_the_same_id() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let repository = "late";
    app.registry.withdraw(repository).unwrap();
    let image = format!("{}/{repository}:latest", app.registry.address());
    app.engine.remove_image(&image).unwrap();

    let id = app.create("missing", Some(&image));
    let end = app.end_of(&id, 0);
    assert_eq!(end.name, "session:failed");
    let error = &end.payload["error"];
    assert_eq!(error["error"], "IMAGE_UNAVAILABLE", "{error}");
    assert_eq!(error["details"]["reason"], "not_found", "{error}");
    assert_eq!(
        app.invoke("session_status", &json!({"id": id}))["error"],
        *error
    );

    app.window
        .wait_for("[data-testid=progress-error]", SOON)
        .unwrap();
    app.picture("missing-image");
    // Literals lose their backticks on the screen.
    let message = error["message"].as_str().unwrap().replace('`', "");
    assert_eq!(
        app.window.execute(COUNT, &[json!(message)]).unwrap(),
        1,
        "{message}"
    );
    let hint = error["hint"].as_str().unwrap().replace('`', "");
    assert_eq!(
        app.window.execute(COUNT, &[json!(hint)]).unwrap(),
        1,
        "{hint}"
    );
    assert!(!app.window.has("[data-sonner-toast]").unwrap());
    assert!(app.engine.resources_of(&id).unwrap().is_empty());

    app.registry
        .publish_named(TestImage::Tiny, repository, "latest")
        .unwrap();
    app.press("[data-testid=retry-session]");
    let end = app.end_of(&id, 1);
    assert_eq!(end.name, "session:ready", "{}", end.payload);
    app.window
        .wait_gone("[data-testid=progress-modal]", SOON)
        .unwrap();
    app.wait_for_terminal();
    assert_eq!(app.window.count("[data-testid=session-row]").unwrap(), 1);
    app.registry.withdraw(repository).unwrap();
}
