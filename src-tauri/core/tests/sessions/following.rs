//! What happens to sessions from outside, and to the engine: the app takes note by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_core::event::{Phase, SessionEvent};
use cove_core::session::{Session, SessionId, SessionState};
use cove_testbed::TestImage;

use crate::support::{App, check_ready, note, own_engine, shared_registry};

/// The promise.
const SOON: Duration = Duration::from_secs(1);

async fn find(app: &App, id: SessionId) -> Option<Session> {
    let listed = app.sessions.list().await;
    listed.into_iter().find(|session| session.session_id == id)
}

/// Waits, by the pushed changes alone, until the list shows the session like this; returns how long
/// that took.
pub(crate) async fn until_shown(
    app: &App,
    id: SessionId,
    like: impl Fn(Option<&Session>) -> bool,
) -> Duration {
    let (begin, mut changes) = (Instant::now(), app.heard.changes.subscribe());
    let shown = async {
        while !like(find(app, id).await.as_ref()) {
            changes.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), shown)
        .await
        .is_err()
    {
        panic!("the list shows {:?}", find(app, id).await);
    }
    begin.elapsed()
}

pub(crate) fn is(state: SessionState, has_container: bool) -> impl Fn(Option<&Session>) -> bool {
    move |session| {
        session
            .is_some_and(|session| session.state == state && session.has_container == has_container)
    }
}

/// Starts to follow, and waits until that has begun.
pub(crate) async fn follow(app: &App) {
    let mut engines = app.heard.engines.subscribe();
    app.sessions.follow_engines();
    engines.changed().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_from_outside_show_within_a_second() {
    let Some(app) = App::shared() else { return };
    follow(&app).await;
    let id = app.ready(None).await;
    let name = id.resource_name();
    let other = format!("{name}-theirs");
    let aside = app.again();
    let docker = |arguments: &[&str]| aside.engine().docker(arguments).unwrap();
    let stopped = || is(SessionState::Stopped, true);
    let mut slowest = Duration::ZERO;
    let mut check =
        async |what: &str, arguments: &[&str], like: &dyn Fn(Option<&Session>) -> bool| {
            docker(arguments);
            let took = until_shown(&app, id, like).await;
            assert!(took < SOON, "{what} showed after {took:?}");
            slowest = slowest.max(took);
        };
    check("pause", &["pause", &name], &is(SessionState::Paused, true)).await;
    assert!(app.sessions.ready(id).await.is_err());
    check(
        "unpause",
        &["unpause", &name],
        &is(SessionState::Ready, true),
    )
    .await;
    app.session(id).await.list_dir("/workspace").await.unwrap();
    // A session is known by its label, not by its name.
    docker(&["rename", &name, &other]);
    app.session(id).await.list_dir("/workspace").await.unwrap();
    check("kill", &["kill", &other], &stopped()).await;
    check_ready(&{
        app.sessions.open(id).await.unwrap();
        app.heard.run(id, 2).await
    });
    check("stop", &["stop", "--time", "1", &other], &stopped()).await;
    check(
        "rm",
        &["rm", "--force", &other],
        &is(SessionState::Stopped, false),
    )
    .await;
    check_ready(&{
        app.sessions.open(id).await.unwrap();
        app.heard.run(id, 3).await
    });
    check(
        "rm",
        &["rm", "--force", &name],
        &is(SessionState::Stopped, false),
    )
    .await;
    check("volume rm", &["volume", "rm", &name], &|session| {
        session.is_none()
    })
    .await;
    note(&format!("slowest change from outside: {slowest:?}"));
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_back_brings_its_sessions_with_it() {
    let Some(engine) = own_engine() else { return };
    let app = App::on(&engine);
    follow(&app).await;
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file");
    let stopped_by_hand = app.ready(None).await;
    app.sessions.stop(stopped_by_hand).await.unwrap();
    for (count, end) in [(2, "killed"), (3, "stopped")] {
        let engine = Arc::clone(&engine);
        let restart = tokio::task::spawn_blocking(move || {
            match end {
                "killed" => engine.kill().unwrap(),
                _ => engine.stop().unwrap(),
            }
            std::thread::sleep(Duration::from_millis(300));
            engine.start_again().unwrap();
        });
        restart.await.unwrap();
        check_ready(&app.heard.run(id, count).await);
        let content = app.read(id, "/workspace/file").await;
        assert_eq!(content, "kept\n", "{end}");
        let other = find(&app, stopped_by_hand).await.unwrap();
        assert_eq!(other.state, SessionState::Stopped, "{end}");
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_taken_back_is_shown_and_taken_back_when_the_engine_answers_again() {
    let Some(engine) = own_engine() else { return };
    let app = App::on(&engine);
    follow(&app).await;
    let image = shared_registry().reference(TestImage::Tiny);
    engine.docker(&["pull", "--quiet", &image]).unwrap();
    let killed = Arc::clone(&engine);
    let mut is_killed = false;
    app.heard.on_event(move |event| {
        let SessionEvent::Progress(event) = event else {
            return;
        };
        if event.phase == Phase::StartingContainer && !is_killed {
            is_killed = true;
            killed.kill().unwrap();
        }
    });
    let id = app.create(Some(&image));
    let run = app.heard.run(id, 1).await;
    assert!(
        matches!(run.last().unwrap().event, SessionEvent::Failed(_)),
        "{run:#?}"
    );
    until_shown(&app, id, |session| {
        session.is_some_and(|session| session.leftovers.len() == 3)
    })
    .await;
    let again = Arc::clone(&engine);
    tokio::task::spawn_blocking(move || again.start_again().unwrap())
        .await
        .unwrap();
    app.until_nothing_is_left(id).await;
    until_shown(&app, id, |session| {
        session.is_some_and(|session| session.leftovers.is_empty())
    })
    .await;
    assert_eq!(engine.networks().unwrap(), Vec::<String>::new());
    app.sessions.shutdown().await;
}
