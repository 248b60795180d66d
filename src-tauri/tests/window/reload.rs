//! Reloading the window loses nothing.

use cove_testbed::{Proxy, TestImage};

use crate::app::{App, Heard, SOON};

#[test]
fn a_reload_in_the_middle_of_a_pull_shows_the_same_progress_again_and_reaches_ready() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let line = Proxy::start(app.registry.address()).unwrap();
    line.set_rate(10 << 20);
    app.forget_image(TestImage::Layers);
    let id = app.create(
        "reloaded",
        Some(&format!("{}/layers:latest", line.address())),
    );
    let before = app
        .window
        .wait("a part of the pull", SOON, |_| {
            Ok(app
                .recorded()
                .heard
                .last()
                .filter(|heard| heard.phase() == "PullingImage")
                .map(Heard::percent)
                .filter(|percent| *percent > 13.0))
        })
        .unwrap();
    line.stall();

    app.reload();
    app.window
        .wait_for("[data-testid=progress-modal]", SOON)
        .unwrap();
    app.window
        .wait_for("[data-testid=progress-pull]", SOON)
        .unwrap();
    let shown = app
        .window
        .wait_text("[data-testid=progress-percent]", SOON, |text| {
            text.ends_with('%') && text != "0 %"
        })
        .unwrap();
    app.picture("reloaded");
    let shown: f64 = shown.trim_end_matches(" %").parse().unwrap();
    assert!(shown >= before.floor(), "{shown} % after {before} %");
    assert!(!app.window.has("[data-testid=terminal]").unwrap());

    line.resume();
    line.unlimited();
    app.expect_ready(&id);
    app.window
        .wait_gone("[data-testid=progress-modal]", SOON)
        .unwrap();
    app.wait_for_terminal();
    let percents: Vec<f64> = app.recorded().heard.iter().map(Heard::percent).collect();
    assert!(
        percents.is_sorted() && percents[0] >= before,
        "{before}, then {percents:?}"
    );
}

#[test]
fn terminals_come_back_after_a_reload_with_what_they_showed() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("back");
    let before = app.wait_for_terminal();
    app.type_line("kept=treasure; echo fi''rst");
    app.wait_for_screen("the first output", |screen| {
        screen.lines().any(|line| line == "first")
    });

    app.reload();
    assert_eq!(app.wait_for_terminal(), before);
    app.wait_for_screen("the output of before", |screen| {
        screen.lines().any(|line| line == "first")
    });
    app.type_line("echo still $kept");
    app.wait_for_screen("the same shell", |screen| {
        screen.lines().any(|line| line == "still treasure")
    });
    assert_eq!(app.window.count("[data-testid=terminal]").unwrap(), 1);
    app.picture("terminal-back");
}
