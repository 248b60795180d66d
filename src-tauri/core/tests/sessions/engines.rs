//! Several engines on one machine: a session stays on its own, whatever becomes of it and of the others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use cove_core::engine::{EngineIdentity, EngineView};
use cove_core::error::ErrorCode;
use cove_core::event::SessionEvent;
use cove_core::files::Encoding;
use cove_core::session::{Session, SessionId, SessionState};
use cove_testbed::{Engine, EngineProxy};
use serde_json::json;

use crate::support::{App, Kept, Start, check_failed, check_ready, eventually, own_engine};

/// An engine, and the line to it.
struct Side {
    engine: Arc<Engine>,
    line: EngineProxy,
}

impl Side {
    fn new() -> Option<Self> {
        let engine = own_engine()?;
        let line = EngineProxy::start(engine.socket()).unwrap();
        Some(Self { engine, line })
    }

    /// Makes a link lead to this engine, in the place of whatever it led to.
    fn stand_behind(&self, place: &Path) {
        let socket = self.line.address();
        let other = place.with_extension("other");
        symlink(socket.strip_prefix("unix://").unwrap(), &other).unwrap();
        fs::rename(&other, place).unwrap();
    }

    fn is_empty(&self) -> bool {
        let names = |kind: &str, format| {
            let listed = [kind, "ls", "--all", "--format", format];
            let listed = if kind == "volume" {
                &[listed[0], listed[1], listed[3], listed[4]][..]
            } else {
                &listed
            };
            self.engine.docker(listed).unwrap()
        };
        names("container", "{{.Names}}").is_empty() && names("volume", "{{.Name}}").is_empty()
    }
}

async fn find(app: &App, id: SessionId) -> Option<Session> {
    let listed = app.sessions.list().await;
    listed.into_iter().find(|session| session.session_id == id)
}

/// Waits until the session is in this state.
async fn until(app: &App, id: SessionId, state: SessionState) {
    let shown = async {
        while find(app, id).await.map(|session| session.state) != Some(state) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), shown).await;
    let found = find(app, id).await;
    assert!(waited.is_ok(), "not {state:?}: {found:?}");
}

async fn follow(app: &App) {
    let mut engines = app.heard.engines.subscribe();
    app.sessions.follow_engines();
    engines.changed().await.unwrap();
}

fn selected(views: &[EngineView]) -> &EngineView {
    let mut selected = views.iter().filter(|view| view.selected);
    let one = selected.next().unwrap();
    assert!(selected.next().is_none(), "{views:#?}");
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_keeps_its_sessions_and_no_other_takes_its_place_unasked() {
    let (Some(one), Some(two)) = (Side::new(), Side::new()) else {
        return;
    };
    let addresses = [one.line.address(), two.line.address()];
    let addresses = addresses.each_ref().map(String::as_str);
    let app = App::among(&addresses, Some(Arc::clone(&one.engine)), Start::default());
    follow(&app).await;
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file");

    one.line.refuse();
    until(&app, id, SessionState::Away).await;
    let status = app.sessions.status(id).await.unwrap();
    assert!(status.message.contains(addresses[0]), "{}", status.message);
    let views = app.sessions.engines().await;
    let view = selected(&views);
    assert_eq!(view.address, addresses[0]);
    assert!(view.problem.is_some(), "{view:?}");
    let refused = app.sessions.open(id).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::EngineUnavailable);
    let refused = app.sessions.delete(id).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::EngineUnavailable);

    // Nothing is made on the other engine before the user says so.
    let (waiting, run) = app.create_and_wait(None).await;
    check_failed(&run, ErrorCode::EngineUnavailable, Some("not_running"));
    assert!(two.is_empty());
    let other = views.iter().find(|view| view.address == addresses[1]);
    let other = other.and_then(|view| view.engine_id.clone()).unwrap();
    app.sessions.select_engine(&other).await.unwrap();
    let chosen = app.kept.engines.lock().unwrap().chosen.clone();
    assert_eq!(chosen, Some(other));
    app.open(waiting, 2).await;
    let there = two.engine.resources_of(&waiting.to_string()).unwrap();
    assert_eq!((there.containers.len(), there.volumes.len()), (1, 1));

    // The first comes back by itself, with its session as it was.
    one.line.resume().unwrap();
    until(&app, id, SessionState::Ready).await;
    let content = app.read(id, "/workspace/file").await;
    assert_eq!(content, "kept\n");
    assert!(two.engine.resources_of(&id.to_string()).unwrap().is_empty());
    // A copy is made where the original is, whatever is chosen.
    let copy = app.sessions.duplicate(id, Some("copy")).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    let there = one.engine.resources_of(&copy.to_string()).unwrap();
    assert_eq!((there.containers.len(), there.volumes.len()), (1, 1));

    app.sessions.delete(waiting).await.unwrap();
    assert!(two.is_empty());
    app.sessions.shutdown().await;

    // After a restart the choice holds, and what is on the other engine is there all the same.
    let start = Start {
        engines: app.kept.engines.lock().unwrap().clone(),
        ..Start::default()
    };
    two.line.refuse();
    let next = App::among(&addresses, Some(Arc::clone(&one.engine)), start);
    next.sessions.follow_engines();
    until(&next, id, SessionState::Stopped).await;
    let views = next.sessions.engines().await;
    assert_eq!(selected(&views).address, addresses[1]);
    let (_, run) = next.create_and_wait(None).await;
    check_failed(&run, ErrorCode::EngineUnavailable, Some("not_running"));
    next.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_container_ended_with_its_engine_is_opened_at_the_first_attempt() {
    let Some(side) = Side::new() else { return };
    let app = App::among(
        &[&side.line.address()],
        Some(Arc::clone(&side.engine)),
        Start::default(),
    );
    follow(&app).await;
    let id = app.ready(None).await;
    side.line.refuse();
    until(&app, id, SessionState::Away).await;
    let name = id.resource_name();
    side.engine.docker(&["kill", &name]).unwrap();
    side.line.resume().unwrap();
    let opened = app.sessions.open(id).await.unwrap();
    assert_eq!(opened.state, SessionState::Provisioning);
    until(&app, id, SessionState::Ready).await;
    app.session(id).await.list_dir("/workspace").await.unwrap();
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_an_engine_that_is_away_at_the_start_is_remembered_until_the_user_forgets_it()
{
    let Some(side) = Side::new() else { return };
    let address = side.line.address();
    // One place alone would be the user's wish for this start of the app, of which nothing is remembered.
    let addresses = [&*address, "unix:///nowhere/engine.sock"];
    let outside = || Some(Arc::clone(&side.engine));
    let start_again = |kept: &Kept| {
        let start = Start {
            engines: kept.engines.lock().unwrap().clone(),
            remembered: kept.sessions.lock().unwrap().clone(),
            ..Start::default()
        };
        App::among(&addresses, outside(), start)
    };
    let is_kept = |kept: &Kept, count: usize| kept.sessions.lock().unwrap().len() == count;
    let first = App::among(&addresses, outside(), Start::default());
    follow(&first).await;
    let (id, removed) = (first.ready(None).await, first.ready(None).await);
    let content = "kept\n".to_owned();
    let written = first
        .session(id)
        .await
        .write_file("/workspace/file", content, Encoding::Utf8, None)
        .await;
    written.unwrap();
    eventually("both to be kept", || is_kept(&first.kept, 2).then_some(())).await;
    first.sessions.shutdown().await;

    // While the engine is away nothing is known better than what was there.
    side.line.refuse();
    let second = start_again(&first.kept);
    for id in [id, removed] {
        until(&second, id, SessionState::Away).await;
        let refused = second.sessions.open(id).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::EngineUnavailable);
    }
    second.sessions.shutdown().await;
    let name = removed.resource_name();
    side.engine.docker(&["rm", "--force", &name]).unwrap();
    side.engine.docker(&["volume", "rm", &name]).unwrap();

    let third = start_again(&first.kept);
    follow(&third).await;
    until(&third, removed, SessionState::Away).await;
    third.sessions.forget(id).await.unwrap();
    assert!(find(&third, id).await.is_none());
    assert!(is_kept(&third.kept, 1));
    // The engine knows better: one is not forgotten by it, and one is gone.
    side.line.resume().unwrap();
    until(&third, id, SessionState::Stopped).await;
    assert!(find(&third, removed).await.is_none());
    third.sessions.forget(id).await.unwrap();
    assert!(find(&third, id).await.is_some(), "it is not away");
    third.open(id, 1).await;
    let content = third.session(id).await.read_file("/workspace/file").await;
    assert_eq!(content.unwrap().content, "kept\n");
    assert!(is_kept(&third.kept, 1));
    third.sessions.delete(id).await.unwrap();
    assert!(is_kept(&third.kept, 0));
    third.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_addresses_that_lead_to_one_engine_are_one_engine() {
    let Some(side) = Side::new() else { return };
    let addresses = [side.line.address(), side.engine.host().to_owned()];
    let addresses = addresses.each_ref().map(String::as_str);
    let app = App::among(&addresses, Some(Arc::clone(&side.engine)), Start::default());
    follow(&app).await;
    let id = app.ready(None).await;
    let views = app.sessions.engines().await;
    assert_eq!(views.len(), 1, "{views:#?}");
    assert_eq!(app.sessions.list().await.len(), 1);
    // One of the two breaks: the engine is reached by the other.
    side.line.refuse();
    until(&app, id, SessionState::Ready).await;
    app.session(id).await.list_dir("/workspace").await.unwrap();
    assert!(
        app.sessions
            .engines()
            .await
            .iter()
            .any(|view| view.selected && view.problem.is_none())
    );
    app.sessions.shutdown().await;
}

/// Writes a record of a run that has ended and left a volume, in the journal's first or present version.
fn write_record(folder: &Path, id: SessionId, engine: Option<&EngineIdentity>) {
    let mut record = json!({
        "version": 1,
        "labels": {
            "dev.cove.session": id.to_string(),
            "dev.cove.workspace": "tests",
            "dev.cove.image": "docker.io/library/python:3.13",
            "dev.cove.created": "2026-01-02T03:04:05Z",
        },
        "source": null,
        "undos": [
            { "undo": "remove_volume", "name": id.resource_name(), "may_lack_labels": false },
        ],
        "ended": true,
    });
    if let Some(engine) = engine {
        record["version"] = json!(2);
        record["engine"] = json!(engine);
    }
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("{id}.json")), record.to_string()).unwrap();
}

fn make_volume(engine: &Engine, id: SessionId) {
    let name = id.resource_name();
    let label = |name: &str, value: &str| format!("--label=dev.cove.{name}={value}");
    let arguments = [
        "volume",
        "create",
        &label("session", &id.to_string()),
        &label("workspace", "tests"),
        &label("image", "docker.io/library/python:3.13"),
        &label("created", "2026-01-02T03:04:05Z"),
        &name,
    ];
    engine.docker(&arguments).unwrap();
}

async fn identity_of(address: &str) -> EngineIdentity {
    let app = App::among(&[address], None, Start::default());
    let views = app.sessions.engines().await;
    EngineIdentity {
        id: views[0].engine_id.clone().unwrap(),
        name: views[0].name.clone(),
        address: address.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_on_an_engine_that_is_away_is_not_forgotten_because_another_has_not_heard_of_it()
 {
    let (Some(one), Some(two)) = (Side::new(), Side::new()) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    // One address behind which the engines are exchanged, and one of the second engine's own.
    let place = scratch.path().join("engine.sock");
    let lead_to = |side: &Side| side.stand_behind(&place);
    let address = format!("unix://{}", place.display());
    lead_to(&one);
    let identity = identity_of(&address).await;
    lead_to(&two);

    let journal = scratch.path().join("journal");
    let (old, new) = (SessionId::random(), SessionId::random());
    for (id, engine) in [(old, None), (new, Some(&identity))] {
        write_record(&journal, id, engine);
        make_volume(&one.engine, id);
    }
    let start = Start {
        journal: Some(journal.clone()),
        ..Start::default()
    };
    let app = App::among(&[&address], None, start);
    let is_written = |id: SessionId| journal.join(format!("{id}.json")).exists();
    app.sessions.follow_engines();
    until(&app, new, SessionState::Away).await;
    for id in [old, new] {
        // Asked for by hand, too.
        drop(app.sessions.discard(id).await);
        assert!(
            is_written(id),
            "forgotten by the engine that has not heard of it"
        );
        assert!(find(&app, id).await.is_some());
    }
    assert!(two.is_empty());

    lead_to(&one);
    two.line.cut();
    for id in [old, new] {
        eventually("the end of what was left", || {
            let left = one.engine.resources_of(&id.to_string()).unwrap();
            (left.is_empty() && !is_written(id)).then_some(())
        })
        .await;
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_put_in_the_place_of_another_is_not_taken_for_it() {
    let (Some(one), Some(two)) = (Side::new(), Side::new()) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("engine.sock");
    let lead_to = |side: &Side| side.stand_behind(&place);
    lead_to(&one);
    let address = format!("unix://{}", place.display());
    let app = App::among(&[&address], Some(Arc::clone(&one.engine)), Start::default());
    // Nothing is followed: whatever is asked goes to whoever listens there now.
    let id = app.ready(None).await;
    lead_to(&two);
    assert!(find(&app, id).await.is_some(), "the list forgot it");
    for refused in [
        app.sessions.delete(id).await,
        app.sessions.delete_container(id).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.code(), ErrorCode::EngineUnavailable, "{error}");
    }
    let (_, run) = app.create_and_wait(None).await;
    assert!(matches!(run.last().unwrap().event, SessionEvent::Failed(_)));
    assert!(two.is_empty());
    lead_to(&one);
    assert!(find(&app, id).await.is_some());
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
}
