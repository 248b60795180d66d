//! Open, stop, delete, restart: sessions live on the engine, and the app may come and go.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cove_core::error::Error;
use cove_core::event::{Phase, SessionEvent};
use cove_core::session::{SessionId, SessionState};
use cove_testbed::{Engine, TestImage};

use crate::support::{App, check_ready, check_run, eventually, shared_registry};

async fn state(app: &App, id: SessionId) -> SessionState {
    app.sessions.status(id).await.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_stopped_session_finds_its_container_and_files() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "echo kept > /workspace/file; echo changed > /root/system",
    );
    let container = app.inspect(id)["Id"].clone();
    let begin = Instant::now();
    app.sessions.stop(id).await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(state(&app, id).await, SessionState::Stopped);
    assert_eq!(app.inspect(id)["State"]["ExitCode"], 0);
    // Stopping what is stopped is no failure.
    app.sessions.stop(id).await.unwrap();

    let run = app.open(id, 2).await;
    assert!(crate::support::seq_of(&run[0].event) > 1, "seq goes on");
    assert_eq!(app.inspect(id)["Id"], container);
    assert_eq!(
        app.sh(id, "cat /workspace/file /root/system"),
        "kept\nchanged"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_session_is_reused_by_the_next_start_of_the_app() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let before = app.inspect(id);
    app.sessions.shutdown().await;
    assert_eq!(app.inspect(id)["State"]["Running"], true);

    let next = app.again();
    let listed = next.sessions.list().await;
    let listed = listed
        .iter()
        .find(|session| session.session_id == id)
        .unwrap();
    assert_eq!(listed.workspace_id, "tests");
    next.open(id, 1).await;
    let after = next.inspect(id);
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["State"]["StartedAt"], before["State"]["StartedAt"]);
    assert!(next.sessions.list_dir(id, "/workspace").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_removed_from_outside_is_made_anew_on_the_same_volume() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file");
    app.engine()
        .docker(&["rm", "--force", &id.resource_name()])
        .unwrap();
    let sessions = app.sessions.clone();
    eventually("the end of the connection", || {
        let state = futures_util::FutureExt::now_or_never(sessions.status(id));
        state.filter(|state| !matches!(state, Ok(status) if status.ready))
    })
    .await
    .unwrap();
    app.open(id, 2).await;
    assert_eq!(app.sh(id, "cat /workspace/file"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_stops_by_itself_takes_its_session_out_of_ready() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.engine().docker(&["kill", &id.resource_name()]).unwrap();
    let begin = Instant::now();
    while state(&app, id).await == SessionState::Ready {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(state(&app, id).await, SessionState::Stopped);
    let refused = app.sessions.list_dir(id, "/workspace").await;
    assert!(
        matches!(refused, Err(Error::SessionNotReady("stopped"))),
        "{refused:?}"
    );
    app.open(id, 2).await;
}

/// The app is killed the moment that it enters a phase; the next one finds what there is.
fn check_killed(phase: Phase, expected: Option<SessionState>) {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
    };
    let (first, second) = (runtime().unwrap(), runtime().unwrap());
    let app = first.block_on(async { App::on(&Arc::new(engine)) });
    let (reached, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    app.heard.on_event(move |event| {
        if matches!(event, SessionEvent::Progress(event) if event.phase == phase) {
            reached.send(()).unwrap();
            // Holds the run right here until the runtime is gone.
            let _ = released.recv();
        }
    });
    let id = {
        let _entered = first.enter();
        app.create(None)
    };
    arrival.recv_timeout(Duration::from_secs(20)).unwrap();
    first.shutdown_background();
    drop(release);

    second.block_on(async {
        let next = app.again();
        let listed = next.sessions.list().await;
        let found = listed.iter().find(|session| session.session_id == id);
        assert_eq!(found.map(|session| session.state), expected, "{phase:?}");
        if expected.is_some() {
            let run = next.open(id, 1).await;
            check_ready(&run);
            next.sessions.delete(id).await.unwrap();
        }
        next.check_nothing_is_left(id);
    });
}

#[test]
fn an_app_that_is_killed_in_the_middle_leaves_an_interrupted_session_that_resumes() {
    check_killed(Phase::CreatingVolume, None);
    check_killed(Phase::CreatingContainer, Some(SessionState::Interrupted));
    check_killed(Phase::StartingContainer, Some(SessionState::Interrupted));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_is_complete_and_can_be_repeated() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
    app.sessions.delete(id).await.unwrap();
    let gone = app.sessions.status(id).await;
    assert!(matches!(gone, Err(Error::SessionNotFound(_))), "{gone:?}");

    // Also when somebody else was quicker.
    let id = app.ready(None).await;
    let name = id.resource_name();
    app.engine().docker(&["rm", "--force", &name]).unwrap();
    app.engine().docker(&["volume", "rm", &name]).unwrap();
    app.sessions.delete(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_never_touches_what_only_bears_the_name() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::Tiny);
    let id = SessionId::random();
    let name = id.resource_name();
    app.engine().docker(&["volume", "create", &name]).unwrap();
    app.engine()
        .docker(&["create", "--name", &name, &image])
        .unwrap();
    app.sessions.delete(id).await.unwrap();
    let left = app.engine().resources_of(&id.to_string()).unwrap();
    assert_eq!(
        (left.containers, left.volumes),
        (vec![name.clone()], vec![name.clone()])
    );
    app.engine().docker(&["rm", &name]).unwrap();
    app.engine().docker(&["volume", "rm", &name]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_deleted_while_it_is_made_leaves_nothing_behind() {
    let Some(app) = App::shared() else { return };
    for delay in [0, 10, 40, 100, 250] {
        let id = app.create(None);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        app.sessions.delete(id).await.unwrap();
        app.check_nothing_is_left(id);
        let run = app.heard.run(id, 1).await;
        check_run(&run);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_run_ends_it() {
    let Some(app) = App::shared() else { return };
    for delay in [0, 20, 100] {
        let id = app.create(None);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        app.sessions.stop(id).await.unwrap();
        let run = app.heard.run(id, 1).await;
        check_run(&run);
        match run.last().unwrap().event {
            SessionEvent::Cancelled(_) => app.check_nothing_is_left(id),
            SessionEvent::Ready(_) => assert_eq!(app.inspect(id)["State"]["Running"], false),
            SessionEvent::Progress(_) | SessionEvent::Failed(_) => panic!("{run:#?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_twice_is_one_run() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sessions.stop(id).await.unwrap();
    let (one, two) = tokio::join!(app.sessions.open(id), app.sessions.open(id));
    one.unwrap();
    two.unwrap();
    check_ready(&app.heard.run(id, 2).await);
    app.sessions.open(id).await.unwrap();
    let events = app.heard.of(id);
    assert_eq!(
        events
            .iter()
            .filter(|moment| moment.event.is_terminal())
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_session_outlives_the_app_with_all_that_was_said_about_it() {
    let Some(app) = App::shared() else { return };
    let id = app.create_from(&serde_json::json!({
        "workspace_id": "w 1", "project_name": "ünïcode \"quoted\"", "description": "a\nb",
    }));
    check_ready(&app.heard.run(id, 1).await);
    app.sessions.stop(id).await.unwrap();
    let find = |listed: Vec<cove_core::session::Session>| {
        listed
            .into_iter()
            .find(|session| session.session_id == id)
            .unwrap()
    };
    let before = find(app.sessions.list().await);
    assert_eq!(find(app.again().sessions.list().await), before);
    assert_eq!(before.state, SessionState::Stopped);
}
