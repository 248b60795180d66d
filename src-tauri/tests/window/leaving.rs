//! Closing the window while a session is made, and starting the app a second time.

use std::time::Duration;

use cove_testbed::{Proxy, TestImage};

use crate::app::{App, READY, SOON};

/// Opens a window in which a slow pull is under way, and closes it.
fn closing(name: &str) -> Option<(App, Proxy, String)> {
    let app = App::open_or_skip()?;
    let line = Proxy::start(app.registry.address()).unwrap();
    // Slow enough to be asked and to answer in the middle of it.
    line.set_rate(1 << 20);
    app.forget_image(TestImage::Layers);
    let id = app.create(name, Some(&format!("{}/layers:latest", line.address())));
    app.window
        .wait_for("[data-testid=progress-pull]", SOON)
        .unwrap();
    app.window.close().unwrap();
    app.window
        .wait("the app to hear of it", SOON, |window| {
            let is_it = |line: &String| line.contains("the window is to be closed");
            Ok(window.log_lines().iter().any(is_it).then_some(()))
        })
        .unwrap();
    app.window
        .wait_for("[data-testid=leaving-dialog]", SOON)
        .unwrap();
    app.settle();
    Some((app, line, id))
}

/// Waits until the app's process has ended.
fn wait_for_end(app: &App) {
    let begin = std::time::Instant::now();
    while app.window.app_process().is_some() {
        let lines = app.window.log_lines();
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "the app goes on: {:#?}",
            &lines[lines.len().saturating_sub(5)..]
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn closing_while_a_session_is_made_asks_and_it_can_go_on_without_the_window() {
    let Some((app, line, id)) = closing("background") else {
        return;
    };
    app.picture("leaving");
    app.press("[data-choice=background]");
    app.window
        .wait("the window to go", SOON, |window| {
            Ok((!window.is_on_screen()?).then_some(()))
        })
        .unwrap();
    line.unlimited();
    app.expect_ready(&id);
    // Whoever starts the app again wants to see it.
    assert!(app.window.start_again().unwrap().success());
    app.window
        .wait("the window to come back", READY, |window| {
            Ok(window.is_on_screen()?.then_some(()))
        })
        .unwrap();
    app.wait_for_terminal();
    app.window.close().unwrap();
    wait_for_end(&app);
}

#[test]
fn closing_while_a_session_is_made_can_cancel_it_and_leaves_nothing() {
    let Some((app, _line, id)) = closing("cancelled") else {
        return;
    };
    // The app is gone before the driver has its answer.
    let _ = app.window.click("[data-choice=cancel]");
    wait_for_end(&app);
    assert!(app.engine.resources_of(&id).unwrap().is_empty());
}
