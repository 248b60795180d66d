//! What others do to sessions and to the engine: the window shows it by itself, and needs no reload.

use std::time::{Duration, Instant};

use cove_testbed::{EngineProxy, WindowOptions};
use serde_json::json;

use crate::app::{App, SOON, figure};

#[test]
fn what_others_do_to_a_session_shows_within_a_second() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("outside");
    let name = format!("cove-{id}");
    let row = format!("[data-testid=session-row][data-session-id='{id}']");
    let mut slowest = Duration::ZERO;
    let mut check = |arguments: &[&str], shown: &str| {
        app.engine.docker(arguments).unwrap();
        let begin = Instant::now();
        app.window.wait_for(shown, SOON).unwrap();
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(1), "{arguments:?}: {took:?}");
        slowest = slowest.max(took);
    };
    check(&["pause", &name], &format!("{row}[data-state=paused]"));
    check(&["unpause", &name], &format!("{row}[data-state=ready]"));
    app.wait_for_terminal();
    check(&["kill", &name], &format!("{row}[data-state=stopped]"));
    app.window
        .wait_for("[data-testid=locked-panes]", SOON)
        .unwrap();
    app.picture("stopped-outside");
    check(&["rm", &name], &format!("[data-testid=kept-files] {row}"));
    app.engine.docker(&["volume", "rm", &name]).unwrap();
    app.window.wait_gone(&row, SOON).unwrap();
    figure(
        "slowest change from outside in the window, ms",
        slowest.as_millis(),
    );
}

#[test]
fn an_engine_that_goes_away_is_said_and_its_sessions_come_back_with_it() {
    let mut line = None;
    let app = App::open_with_or_skip(|engine| {
        let line = line.insert(EngineProxy::start(engine.socket()).unwrap());
        WindowOptions {
            docker_host: Some(line.address()),
            ..WindowOptions::default()
        }
    });
    let (Some(app), Some(line)) = (app, line) else {
        return;
    };
    let id = app.ready_session("patient");
    app.wait_for_terminal();
    line.refuse();
    line.cut();
    app.window
        .wait_for("[data-testid=engine-gone]", SOON)
        .unwrap();
    app.window
        .wait_for("[data-testid=session-row][data-state=away]", SOON)
        .unwrap();
    app.settle();
    app.picture("engine-gone");
    line.resume().unwrap();
    app.window
        .wait_gone("[data-testid=engine-gone]", SOON)
        .unwrap();
    app.window
        .wait_for("[data-testid=session-row][data-state=ready]", SOON)
        .unwrap();
    let read = app.invoke("list_dir", &json!({"id": id, "path": "/workspace"}));
    assert_eq!(read["ok"], true, "{read}");
    // A cut of the engine's line ends terminals too; another is there at one press.
    app.window.click("[data-testid=new-terminal]").unwrap();
    app.wait_for_terminal();
}
