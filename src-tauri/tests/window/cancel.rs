//! Cancelling a session in every phase. A gate before the engine holds back the one request that the phase is about,
//! so that the phase lasts until it was cancelled.

use std::time::Duration;

use cove_testbed::{Proxy, TestImage, WindowOptions};
use serde_json::json;

use crate::app::{App, Heard, SOON, figure};
use crate::gate::Gate;

const LIMIT: Duration = Duration::from_secs(2);
/// Notes when Cancel was pressed, by the page's clock.
const PRESS: &str = "
    document.querySelector('[data-testid=cancel-session]').click();
    return performance.now();
";

/// When the engine answers what is held back.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// As soon as the window has asked to cancel: the engine was only slow.
    OnceCancelling,
    /// After the cancel is over: the engine was stuck.
    AfterTheEnd,
}

/// Cancels while `phase` is about `request`, and checks that nothing is left and that a second attempt works.
fn check(phase: &str, request: (&'static str, &'static str), answer: Answer) {
    let mut gate = None;
    let app = App::open_with_or_skip(|engine| {
        let gate = gate.insert(Gate::start(engine));
        WindowOptions {
            docker_host: Some(gate.host().to_owned()),
            ..WindowOptions::default()
        }
    });
    let (Some(app), Some(gate)) = (app, gate) else {
        return;
    };
    let image = app.registry.reference(TestImage::Tiny);
    app.forget_image(TestImage::Tiny);
    // What the list and the engine's chip ask at the start is not what is to be held back.
    app.window
        .wait_for("[data-testid=first-run]", SOON)
        .unwrap();
    app.fill_in("cancelled", Some(&image));
    gate.hold(request.0, request.1);
    app.press("[data-testid=create-session]");
    let id = app
        .window
        .wait(&format!("the phase {phase}"), SOON, |_| {
            let heard = app.recorded().heard;
            Ok(heard
                .iter()
                .find(|heard| heard.phase() == phase)
                .filter(|_| gate.holds_one())
                .map(|heard| heard.session().to_owned()))
        })
        .unwrap();

    app.window
        .wait_for("[data-testid=cancel-session]", SOON)
        .unwrap();
    let pressed = app.window.execute(PRESS, &[]).unwrap().as_f64().unwrap();
    if answer == Answer::OnceCancelling {
        app.window
            .wait("the cancel on its way", SOON, |_| {
                let asked = app.recorded().asked;
                Ok(asked
                    .iter()
                    .any(|asked| asked.command == "cancel_session")
                    .then_some(()))
            })
            .unwrap();
        gate.release();
    }
    let end = app.end_of(&id, 0);
    check_cancelled(&end, phase, pressed);
    gate.release();

    app.window
        .wait_for("[data-testid=progress-undone]", SOON)
        .unwrap();
    app.picture(&format!("cancelled-in-{phase}"));
    check_nothing_left(&app, &id);
    if answer == Answer::OnceCancelling {
        app.settle();
        let verdict = app.window.text("[data-testid=progress-undone]").unwrap();
        assert!(verdict.contains("Nothing was left behind"), "{verdict}");
    }

    app.press("[data-testid=retry-session]");
    let end = app.end_of(&id, 1);
    assert_eq!(end.name, "session:ready", "{}", end.payload);
    app.wait_for_terminal();
    let answer = app.invoke("delete_session", &json!({"id": id}));
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(app.engine.resources_of(&id).unwrap().is_empty());
}

#[track_caller]
fn check_cancelled(end: &Heard, phase: &str, pressed: f64) {
    assert_eq!(end.name, "session:cancelled", "{}", end.payload);
    assert_eq!(end.phase(), phase, "{}", end.payload);
    let took = end.at - pressed;
    figure(&format!("cancel in {phase}, ms"), took);
    assert!(
        took < LIMIT.as_secs_f64() * 1_000.0,
        "cancelling took {took} ms"
    );
}

/// What a stuck engine made after all is removed when it has answered.
#[track_caller]
fn check_nothing_left(app: &App, id: &str) {
    let left = app
        .window
        .wait("nothing of the session on the engine", SOON, |_| {
            Ok(app.engine.resources_of(id)?.is_empty().then_some(()))
        });
    left.unwrap_or_else(|error| panic!("{error:#}: {:?}", app.engine.resources_of(id)));
}

#[test]
fn cancelling_while_starting_leaves_nothing_behind() {
    check("Starting", ("GET", "/images/"), Answer::OnceCancelling);
}

#[test]
fn cancelling_before_the_pull_begins_leaves_nothing_behind() {
    check(
        "PullingImage",
        ("POST", "/images/create"),
        Answer::AfterTheEnd,
    );
}

#[test]
fn cancelling_while_creating_the_volume_leaves_nothing_behind() {
    check(
        "CreatingVolume",
        ("POST", "/volumes/create"),
        Answer::OnceCancelling,
    );
}

#[test]
fn cancelling_while_creating_the_container_leaves_nothing_behind() {
    check(
        "CreatingContainer",
        ("POST", "/containers/create"),
        Answer::OnceCancelling,
    );
}

#[test]
fn cancelling_while_starting_the_container_leaves_nothing_behind() {
    check(
        "StartingContainer",
        ("POST", "/start"),
        Answer::OnceCancelling,
    );
}

#[test]
fn cancelling_on_an_engine_that_is_stuck_ends_in_time_and_leaves_nothing_once_it_answers() {
    check(
        "CreatingVolume",
        ("POST", "/volumes/create"),
        Answer::AfterTheEnd,
    );
}

#[test]
fn cancelling_while_a_stuck_engine_creates_the_container_leaves_not_even_the_volume_behind() {
    check(
        "CreatingContainer",
        ("POST", "/containers/create"),
        Answer::AfterTheEnd,
    );
}

#[test]
fn cancelling_in_the_middle_of_a_pull_stops_it_and_leaves_nothing_behind() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let line = Proxy::start(app.registry.address()).unwrap();
    line.set_rate(4 << 20);
    app.forget_image(TestImage::Layers);
    let image = format!("{}/layers:latest", line.address());
    let id = app.create("cancelled", Some(&image));
    app.window
        .wait("bytes of the pull", SOON, |_| {
            let heard = app.recorded().heard;
            let bytes = heard
                .last()
                .and_then(|heard| heard.payload["progress"]["pull"]["downloaded_bytes"].as_u64());
            Ok(bytes.filter(|bytes| *bytes > 4 << 20))
        })
        .unwrap();
    let pressed = app.window.execute(PRESS, &[]).unwrap().as_f64().unwrap();
    check_cancelled(&app.end_of(&id, 0), "PullingImage", pressed);
    app.picture("cancelled-pull");
    assert!(app.engine.resources_of(&id).unwrap().is_empty());

    // The engine keeps no half of the image, and a second attempt gets all of it.
    assert!(!app.engine.has_image(&image).unwrap());
    line.unlimited();
    app.press("[data-testid=retry-session]");
    let end = app.end_of(&id, 1);
    assert_eq!(end.name, "session:ready", "{}", end.payload);
}
