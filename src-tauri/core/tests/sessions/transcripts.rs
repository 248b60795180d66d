//! Failures that no real engine shows on demand, in time that is made up: what is told, and what the
//! engine is asked, word for word.

use std::sync::Arc;
use std::time::Duration;

use cove_core::engine::{LayerStep, PullMessage};
use cove_core::error::{EngineCommand, Error, ErrorCode};
use cove_core::event::{Phase, SessionEvent, Undone};
use cove_core::session::{SessionId, SessionState};
use cove_core::settings::Settings;
use serde_json::json;

use crate::support::fake_engine::{Act, FakeEngine, refused};
use crate::support::{App, Moment, Start, check_failed, check_ready, check_run};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn app(engine: &Arc<FakeEngine>) -> App {
    let settings = Settings {
        time_limit_s: 10,
        ..Settings::default()
    };
    let start = Start {
        settings,
        ..Start::default()
    };
    App::over(engine.clone(), start)
}

/// Cancels the session from the moment that it enters a phase, after a delay.
fn cancel_at(app: &App, phase: Phase, delay: Duration) {
    let sessions = app.sessions.clone();
    let mut armed = true;
    app.heard.on_event(move |event| {
        if let SessionEvent::Progress(event) = event
            && event.phase == phase
            && std::mem::take(&mut armed)
        {
            let (sessions, id) = (sessions.clone(), event.session_id);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                sessions.cancel(id).await.unwrap();
            });
        }
    });
}

/// What the terminal event says was undone, by `container` and `volume`, and whether it failed.
fn undone(run: &[Moment], id: SessionId) -> Vec<(String, Option<String>)> {
    let undone: &[Undone] = match &run.last().unwrap().event {
        SessionEvent::Failed(event) => &event.undone,
        SessionEvent::Cancelled(event) => &event.undone,
        other => panic!("{other:?}"),
    };
    let named = undone.iter().map(|undone| {
        let what = undone.what.replace(&id.resource_name(), "NAME");
        // Its name is made up anew each time.
        let what = match what.split_once("cove-net-") {
            Some((before, _)) => format!("{before}NETWORK`"),
            None => what,
        };
        (what, undone.failure.clone())
    });
    named.collect()
}

fn phases(run: &[Moment]) -> Vec<Phase> {
    let mut phases: Vec<_> = run
        .iter()
        .filter_map(|moment| crate::support::progress_of(&moment.event))
        .map(|(phase, _)| phase)
        .collect();
    phases.dedup();
    phases
}

/// Nothing more is told of a session in a minute.
async fn check_silence(app: &App, id: SessionId) {
    let count = app.heard.of(id).len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(app.heard.of(id).len(), count);
}

#[tokio::test(start_paused = true)]
async fn creating_asks_the_engine_nothing_before_it_returns() {
    let engine = FakeEngine::new();
    let app = app(&engine);
    let id = app.create(None);
    assert_eq!(engine.call_count(), 0);
    let run = app.heard.run(id, 1).await;
    check_ready(&run);
    assert_eq!(
        engine.changes(),
        [
            "0 create_volume",
            "0 create_network",
            "0 create_container",
            "0 upload",
            "0 start_container",
        ]
    );
    check_silence(&app, id).await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_told_with_its_failure() {
    let engine = FakeEngine::new();
    engine
        .next(
            "start_container",
            Act::Fail(refused("start the container", "no")),
        )
        .next(
            "remove_volume",
            Act::Fail(refused("remove the volume", "volume is in use")),
        );
    let app = app(&engine);
    let (id, run) = app.create_and_wait(None).await;
    check_run(&run);
    let in_use = "failed to remove the volume: volume is in use".to_owned();
    assert_eq!(
        undone(&run, id),
        [
            ("Removed container `NAME`".to_owned(), None),
            ("Volume `NAME`".to_owned(), Some(in_use)),
            ("Removed network `NETWORK`".to_owned(), None),
        ]
    );
    // What failed is tried once more, after the end of the run has been told.
    check_silence(&app, id).await;
    assert_eq!(
        engine.changes()[5..],
        [
            "0 remove_container",
            "0 remove_volume",
            "0 remove_network",
            "0 remove_volume"
        ]
    );
    assert_eq!(engine.holds(), (0, 0));
    let status = app.sessions.status(id).await.unwrap();
    assert_eq!(status.state, SessionState::Failed);
    let told: Vec<_> = status.undone.iter().map(|undone| &undone.failure).collect();
    assert_eq!(
        told,
        [&None, &None, &None],
        "the snapshot says what is so now"
    );
    assert_eq!(status.error.unwrap().error, ErrorCode::EngineRefused);
    check_silence(&app, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_as_such_and_leaves_nothing_behind() {
    for (operation, phase) in [
        ("create_volume", Phase::CreatingVolume),
        ("create_container", Phase::CreatingContainer),
        ("upload", Phase::CreatingContainer),
        ("start_container", Phase::StartingContainer),
    ] {
        let engine = FakeEngine::new();
        let full = Error::DiskFull {
            operation: operation.to_owned(),
            command: Some(EngineCommand::Docker),
        };
        engine.next(operation, Act::Fail(full));
        let app = app(&engine);
        let (id, run) = app.create_and_wait(None).await;
        check_failed(&run, ErrorCode::DiskFull, None);
        assert_eq!(phases(&run).last(), Some(&phase));
        assert_eq!(engine.holds(), (0, 0), "{operation}");
        check_silence(&app, id).await;
        app.open(id, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_effect_is_undone_when_it_has_settled_and_what_it_uses_after_it() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Late(ms(5_000)));
    let app = app(&engine);
    cancel_at(&app, Phase::CreatingContainer, ms(100));
    let (id, run) = app.create_and_wait(None).await;
    check_run(&run);
    let later = "the engine has not answered yet; it is taken back as soon as it does".to_owned();
    assert_eq!(
        undone(&run, id),
        [
            ("Container `NAME`".to_owned(), Some(later.clone())),
            ("Volume `NAME`".to_owned(), Some(later.clone())),
            ("Network `NETWORK`".to_owned(), Some(later)),
        ]
    );
    check_silence(&app, id).await;
    assert_eq!(
        engine.changes(),
        [
            "0 create_volume",
            "0 create_network",
            "0 create_container",
            "5000 remove_container",
            "5000 remove_volume",
            "5000 remove_network",
        ]
    );
    assert_eq!(engine.holds(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_what_the_run_before_it_still_has_to_undo() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Late(ms(5_000)));
    let app = app(&engine);
    cancel_at(&app, Phase::CreatingContainer, ms(100));
    let (id, _) = app.create_and_wait(None).await;
    app.open(id, 2).await;
    check_silence(&app, id).await;
    assert_eq!(engine.holds(), (1, 1));
    assert_eq!(
        app.sessions.status(id).await.unwrap().state,
        SessionState::Ready
    );
    assert_eq!(
        engine.changes(),
        [
            "0 create_volume",
            "0 create_network",
            "0 create_container",
            "5000 remove_container",
            "5000 remove_volume",
            "5000 remove_network",
            "5000 create_volume",
            "5000 create_network",
            "5000 create_container",
            "5000 upload",
            "5000 start_container",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_quick_effect_is_awaited_and_undone_before_the_end_is_told() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Late(ms(500)));
    let app = app(&engine);
    cancel_at(&app, Phase::CreatingContainer, ms(100));
    let (id, run) = app.create_and_wait(None).await;
    assert_eq!(
        undone(&run, id),
        [
            ("Removed container `NAME`".to_owned(), None),
            ("Removed volume `NAME`".to_owned(), None),
            ("Removed network `NETWORK`".to_owned(), None),
        ]
    );
    assert_eq!(engine.holds(), (0, 0));
    check_silence(&app, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_told_as_idle_time_until_it_ends_in_a_timeout() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Never);
    let app = app(&engine);
    let (id, run) = app.create_and_wait(None).await;
    check_run(&run);
    let idle: Vec<_> = run
        .iter()
        .filter_map(|moment| match &moment.event {
            SessionEvent::Progress(event) if event.phase == Phase::CreatingContainer => {
                Some(event.progress.idle_ms)
            }
            _ => None,
        })
        .collect();
    let expected: Vec<u64> = (0..40).map(|beat| beat * 250).collect();
    assert_eq!(idle, expected);
    let SessionEvent::Failed(failed) = &run.last().unwrap().event else {
        panic!("{:?}", run.last());
    };
    assert_eq!(failed.error.error, ErrorCode::Timeout);
    assert_eq!(
        json!(failed.error.details),
        json!({ "phase": "CreatingContainer", "limit_s": 10 })
    );
    check_silence(&app, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_moves_is_never_killed() {
    let engine = FakeEngine::new();
    let message = |current| PullMessage {
        layer: "a".to_owned(),
        step: LayerStep::Downloading {
            current,
            total: Some(10),
        },
    };
    engine.pulls(
        (1..=6)
            .map(|current| (ms(9_000), message(current)))
            .collect(),
    );
    let app = app(&engine);
    let (id, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    let elapsed = app.sessions.status(id).await.unwrap().progress.elapsed_ms;
    assert_eq!(elapsed, 54_000);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_fails_the_run_and_leaves_nothing_behind() {
    let engine = FakeEngine::new();
    engine.next("exec", Act::Never);
    let settings = Settings {
        time_limit_s: 60,
        ..Settings::default()
    };
    let start = Start {
        settings,
        ..Start::default()
    };
    let app = App::over(engine.clone(), start);
    let (id, run) = app.create_and_wait(None).await;
    check_failed(&run, ErrorCode::AgentUnavailable, None);
    assert_eq!(
        engine.changes()[5..],
        [
            "20000 remove_container",
            "20000 remove_volume",
            "20000 remove_network"
        ]
    );
    assert_eq!(engine.holds(), (0, 0));
    check_silence(&app, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_there_keeps_its_container_and_files_when_opening_it_fails() {
    let engine = FakeEngine::new();
    let app = app(&engine);
    let (id, run) = app.create_and_wait(None).await;
    check_ready(&run);
    app.sessions.stop(id).await.unwrap();
    engine.next("exec", Act::Fail(refused("run the agent", "no")));
    app.sessions.open(id).await.unwrap();
    let run = app.heard.run(id, 2).await;
    check_failed(&run, ErrorCode::EngineRefused, None);
    assert_eq!(engine.holds(), (1, 1));
    assert_eq!(
        engine.changes()[5..],
        [
            "0 stop_container",
            "0 upload",
            "0 start_container",
            "0 stop_container",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_five_seconds_at_most() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Never);
    let app = app(&engine);
    let id = app.create(None);
    app.heard
        .until(id, |moments| (moments.len() > 6).then_some(()))
        .await;
    let begin = tokio::time::Instant::now();
    app.sessions.shutdown().await;
    assert!(begin.elapsed() <= ms(5_000), "{:?}", begin.elapsed());
    assert!(matches!(
        app.heard.run(id, 1).await.last().unwrap().event,
        SessionEvent::Cancelled(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_is_stopped_if_that_is_wished() {
    let engine = FakeEngine::new();
    let app = app(&engine);
    let id = app.ready(None).await;
    let state = async || app.sessions.status(id).await.unwrap().state;
    let minutes = |count: u64| tokio::time::sleep(Duration::from_secs(60 * count));
    minutes(60).await;
    assert_eq!(state().await, SessionState::Ready, "it is not wished yet");
    let mut settings = app.sessions.settings();
    settings.idle_stop_minutes = Some(90);
    app.sessions.set_settings(settings).unwrap();
    minutes(20).await;
    // Whatever comes of it, somebody has looked.
    let _ = app.sessions.ready(id).await;
    let said = async || app.sessions.status(id).await.unwrap().session.idle_stop_ms;
    minutes(87).await;
    assert_eq!((state().await, said().await), (SessionState::Ready, None));
    let changes = *app.heard.changes.borrow();
    minutes(2).await;
    assert_eq!(state().await, SessionState::Ready);
    assert!(said().await.is_some(), "it is said before");
    assert_eq!(*app.heard.changes.borrow(), changes + 1);
    app.connected(id).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(said().await, None, "somebody wants it to go on");
    minutes(89).await;
    assert_eq!(state().await, SessionState::Ready);
    assert!(said().await.is_some());
    minutes(2).await;
    assert_eq!(state().await, SessionState::Stopped);
    assert_eq!(engine.calls("stop_container"), 1);
    let stopped = app.sessions.status(id).await.unwrap().session;
    assert_eq!(
        (stopped.idle_stop_ms, stopped.stopped_unused_minutes),
        (None, Some(90))
    );
    app.open(id, 2).await;
    let opened = app.sessions.status(id).await.unwrap().session;
    assert_eq!(opened.stopped_unused_minutes, None);
}
