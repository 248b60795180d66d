//! What an app that was killed has left, and what the next one makes of it.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cove_core::event::{Phase, SessionEvent};
use cove_core::session::{SessionId, SessionState};
use cove_testbed::Engine;

use crate::support::{App, Start, check_ready};

/// An app that was killed, and the next one, which has just started.
struct Killed {
    id: SessionId,
    next: App,
    runtime: tokio::runtime::Runtime,
    _journals: [tempfile::TempDir; 2],
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn with_journal(engine: &Arc<Engine>, folder: &Path) -> App {
    let journal = Some(folder.to_owned());
    App::with(
        engine,
        Start {
            journal,
            ..Start::default()
        },
    )
}

/// Kills an app the moment that a run of it enters a phase: the run that `start` starts, after `prepare`.
fn kill<T>(
    phase: Phase,
    prepare: impl AsyncFnOnce(&App) -> T,
    start: impl AsyncFnOnce(&App, T) -> SessionId,
) -> Option<Killed> {
    let engine = Arc::new(Engine::from_env_or_skip()?);
    let journals = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (runtime(), runtime());
    let app = first.block_on(async { with_journal(&engine, journals[0].path()) });
    let (reached, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let heard = Arc::clone(&app.heard);
    let id = first.block_on(async {
        let prepared = prepare(&app).await;
        heard.on_event(move |event| {
            if matches!(event, SessionEvent::Progress(event) if event.phase == phase) {
                reached.send(()).unwrap();
                // Holds the run right here until the runtime is gone.
                let _ = released.recv();
            }
        });
        start(&app, prepared).await
    });
    arrival.recv_timeout(Duration::from_secs(20)).unwrap();
    first.shutdown_background();
    drop(release);
    // What is on the disk is all that the next one gets; the dead one's lock has gone with it.
    for entry in std::fs::read_dir(journals[0].path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), journals[1].path().join(entry.file_name())).unwrap();
    }
    let next = second.block_on(async { with_journal(&engine, journals[1].path()) });
    app.leave_to(&next);
    Some(Killed {
        id,
        next,
        runtime: second,
        _journals: journals,
    })
}

async fn state(app: &App, id: SessionId) -> Option<SessionState> {
    let listed = app.sessions.list().await;
    let found = listed.iter().find(|session| session.session_id == id);
    found.map(|session| session.state)
}

async fn nothing(_: &App) {}

async fn create(app: &App, (): ()) -> SessionId {
    app.create(None)
}

/// Makes a session with something in its volume and something in its container.
async fn ready(app: &App) -> SessionId {
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file; echo old > /root/mark");
    id
}

/// Kills a creation in each phase that does something, and goes on with the next app.
fn kill_in_each_phase(go_on: &impl AsyncFn(&App, SessionId, Phase)) {
    for phase in [
        Phase::PullingImage,
        Phase::CreatingVolume,
        Phase::CreatingContainer,
        Phase::StartingContainer,
    ] {
        let Some(killed) = kill(phase, nothing, create) else {
            return;
        };
        let next = go_on(&killed.next, killed.id, phase);
        killed.runtime.block_on(next);
    }
}

#[test]
fn a_session_whose_creation_was_killed_is_interrupted_and_resumes() {
    kill_in_each_phase(&async |next: &App, id, phase| {
        let state = state(next, id).await;
        assert_eq!(state, Some(SessionState::Interrupted), "{phase:?}");
        check_ready(&next.open(id, 1).await);
        next.sessions.delete(id).await.unwrap();
        next.check_nothing_is_left(id);
    });
}

#[test]
fn a_session_whose_creation_was_killed_can_be_discarded_without_a_trace() {
    kill_in_each_phase(&async |next: &App, id, phase| {
        next.sessions.discard(id).await.unwrap();
        next.check_nothing_is_left(id);
        assert_eq!(state(next, id).await, None, "{phase:?}");
    });
}

#[test]
fn discarding_an_interrupted_opening_keeps_the_session_and_its_files() {
    let stopped = async |app: &App| {
        let id = ready(app).await;
        app.sessions.stop(id).await.unwrap();
        id
    };
    let open = async |app: &App, id| {
        app.sessions.open(id).await.unwrap();
        id
    };
    let Some(killed) = kill(Phase::StartingContainer, stopped, open) else {
        return;
    };
    let (next, id) = (&killed.next, killed.id);
    killed.runtime.block_on(async {
        assert_eq!(state(next, id).await, Some(SessionState::Interrupted));
        next.sessions.discard(id).await.unwrap();
        assert_eq!(state(next, id).await, Some(SessionState::Stopped));
        assert_eq!(next.inspect(id)["State"]["Running"], false);
        next.open(id, 1).await;
        assert_eq!(next.sh(id, "cat /workspace/file"), "kept");
        next.sessions.delete(id).await.unwrap();
    });
}

#[test]
fn a_rebuild_that_was_killed_can_be_discarded_and_the_old_container_is_back() {
    let rebuild = async |app: &App, id| {
        app.sessions.rebuild(id, None).await.unwrap();
        id
    };
    let Some(killed) = kill(Phase::StartingContainer, ready, rebuild) else {
        return;
    };
    let (next, id) = (&killed.next, killed.id);
    killed.runtime.block_on(async {
        assert_eq!(state(next, id).await, Some(SessionState::Interrupted));
        next.sessions.discard(id).await.unwrap();
        assert_eq!(next.sh(id, "cat /workspace/file /root/mark"), "kept\nold");
        next.open(id, 1).await;
        next.sessions.delete(id).await.unwrap();
        next.check_nothing_is_left(id);
    });
}
