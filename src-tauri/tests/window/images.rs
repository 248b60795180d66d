//! Images that were not made for this: each becomes a session that works.

use cove_testbed::TestImage;
use serde_json::json;

use crate::app::{App, SOON, Shell};

fn ready(app: &App, image: TestImage) -> String {
    let id = app.create_by_command(Some(&app.registry.reference(image)));
    app.expect_ready(&id);
    id
}

#[test]
fn an_image_whose_command_exits_or_fails_becomes_ready_all_the_same() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    for image in [
        TestImage::Exits,
        TestImage::BadEntrypoint,
        TestImage::FailingEntrypoint,
    ] {
        let id = ready(&app, image);
        assert_eq!(
            Shell::open(&app, &id).run("echo alive"),
            "alive\n",
            "{image:?}"
        );
        let status = app.invoke("session_status", &json!({"id": id}));
        assert_eq!(status["ready"], true, "{image:?}: {status}");
    }
}

#[test]
fn the_images_own_user_owns_the_workspace_and_what_is_made_in_it() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    for (image, user) in [(TestImage::NonRoot, "1234"), (TestImage::NamedUser, "1500")] {
        let id = ready(&app, image);
        let shell = Shell::open(&app, &id);
        assert_eq!(
            shell.run("id -u; pwd; stat -c %u ."),
            format!("{user}\n/workspace\n{user}\n"),
            "{image:?}"
        );
        assert_eq!(
            shell.run("echo mine > mine; stat -c %u mine"),
            format!("{user}\n"),
            "{image:?}"
        );
        let answer = app.invoke("read_file", &json!({"id": id, "path": "/workspace/mine"}));
        assert_eq!(answer["content"], "mine\n", "{image:?}: {answer}");
        let written = json!({"id": id, "path": "/workspace/written", "content": "by the window", "encoding": "utf-8"});
        assert_eq!(app.invoke("write_file", &written)["ok"], true, "{image:?}");
        assert_eq!(
            shell.run("cat written; stat -c ' %u' written"),
            format!("by the window {user}\n"),
            "{image:?}"
        );
        // The agent may be root; the user is not, and gains nothing by it.
        assert_eq!(
            shell.run("cat /proc/1/environ > /dev/null 2>&1 || echo denied"),
            "denied\n",
            "{image:?}"
        );
    }
}

#[test]
fn an_image_without_a_shell_becomes_ready_and_the_terminal_says_that_there_is_none() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.create(
        "static",
        Some(&app.registry.reference(TestImage::StaticOnly)),
    );
    app.expect_ready(&id);
    app.window
        .wait_for("[data-testid=file-tree]", SOON)
        .unwrap();
    app.wait_for_screen("that there is no shell", |screen| {
        screen.contains("This image has no shell")
    });
    app.picture("no-shell");
    let written = json!({"id": id, "path": "/workspace/a", "content": "kept", "encoding": "utf-8"});
    assert_eq!(app.invoke("write_file", &written)["ok"], true);
    assert_eq!(
        app.invoke("read_file", &json!({"id": id, "path": "/workspace/a"}))["content"],
        "kept"
    );
}
