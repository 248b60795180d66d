//! An app that is killed in the middle of a run: the next one lists it, resumes it or takes it back.

use cove_testbed::{Proxy, TestImage, WindowOptions};

use crate::app::{App, Heard, SOON};

/// The app after the one that was killed, and the session whose run was under way.
struct Killed {
    app: App,
    id: String,
    _home: tempfile::TempDir,
}

/// Kills an app in the middle of a pull and opens the next one, on a copy of its home folder.
fn kill(name: &str, line: &mut Option<Proxy>) -> Option<Killed> {
    let app = App::open_or_skip()?;
    let proxy = line.insert(Proxy::start(app.registry.address()).unwrap());
    proxy.set_rate(4 << 20);
    app.forget_image(TestImage::Layers);
    let id = app.create(name, Some(&format!("{}/layers:latest", proxy.address())));
    app.window
        .wait("a part of the pull", SOON, |_| {
            let heard = app.recorded().heard;
            Ok(heard
                .last()
                .filter(|heard| heard.phase() == "PullingImage")
                .map(Heard::percent))
        })
        .unwrap();
    // What is on its disk now is what the next one gets.
    let copy = app.kill();
    drop(app);
    let next = App::open_keeping_sessions_or_skip(|_| WindowOptions {
        home: Some(copy.path().to_owned()),
        ..WindowOptions::default()
    })?;
    next.window
        .wait_for("[data-testid=session-row][data-state=interrupted]", SOON)
        .unwrap();
    next.press("[data-testid=session-row] button.main");
    next.settle();
    Some(Killed {
        app: next,
        id,
        _home: copy,
    })
}

#[test]
fn a_run_that_was_killed_is_listed_and_resumes() {
    let mut line = None;
    let Some(Killed { app, id, _home }) = kill("resumed", &mut line) else {
        return;
    };
    app.picture("interrupted");
    if let Some(line) = &line {
        line.unlimited();
    }
    app.press("[data-testid=resume]");
    app.expect_ready(&id);
    app.wait_for_terminal();
}

#[test]
fn a_run_that_was_killed_can_be_discarded() {
    let mut line = None;
    let Some(Killed { app, id, _home }) = kill("discarded", &mut line) else {
        return;
    };
    app.press("[data-testid=discard]");
    app.window
        .wait_gone("[data-testid=session-row]", SOON)
        .unwrap();
    assert!(app.engine.resources_of(&id).unwrap().is_empty());
}
