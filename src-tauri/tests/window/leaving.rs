//! Closing the window while a session is made, and starting the app a second time.

use std::fs;
use std::time::Duration;

use cove_testbed::{Proxy, TestImage};

use crate::app::{App, READY, SOON};

/// What a desktop with a tray has on its session bus. On its own bus each test has none.
struct Tray {
    is_shown: bool,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Tray {
    fn register_status_notifier_item(&mut self, service: &str) {
        self.is_shown &= !service.is_empty();
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        self.is_shown
    }
}

impl Tray {
    /// Puts a tray on the app's session bus, for as long as the connection lives.
    fn beside(app: &App) -> zbus::blocking::Connection {
        let tray = Self { is_shown: true };
        let builder = app.session_bus();
        let builder = builder.serve_at("/StatusNotifierWatcher", tray).unwrap();
        let builder = builder.name("org.kde.StatusNotifierWatcher").unwrap();
        builder.build().unwrap()
    }
}

/// Waits for a line in the app's log.
fn wait_for_line(app: &App, text: &str) {
    app.window
        .wait(text, SOON, |window| {
            let lines = window.log_lines();
            Ok(lines.iter().any(|line| line.contains(text)).then_some(()))
        })
        .unwrap();
}

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
    wait_for_line(&app, "the app is to end while");
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
    let _tray = Tray::beside(&app);
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
fn going_on_in_the_background_where_there_is_no_tray_minimises_the_window_and_never_ends_the_app() {
    let Some((app, line, id)) = closing("without-tray") else {
        return;
    };
    app.press("[data-choice=background]");
    wait_for_line(&app, "there is no tray");
    line.unlimited();
    app.expect_ready(&id);
    let process = app.window.app_process().unwrap();
    // A system without the library has none to load: neither may be needed.
    let loaded = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    assert!(!loaded.contains("appindicator"), "it was loaded");
    assert!(app.window.start_again().unwrap().success());
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
