//! What is a session's goes with it, and what only looks like a session's is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use cove_core::engine::{Engine as _, Labels};
use cove_core::error::{Error, ErrorCode};
use cove_core::event::{Phase, SessionEvent};
use cove_core::image::ImageReference;
use cove_core::session::{SessionId, SessionState};
use cove_testbed::{Engine, TestImage};
use tokio::time::Instant;

use crate::support::fake_engine::{Act, FakeEngine};
use crate::support::{
    App, Start, check_failed, check_ready, check_run, eventually, own_engine, shared_registry,
};

/// Returns the names of all volumes but the sessions' own.
fn nameless_volumes(engine: &Engine) -> BTreeSet<String> {
    let names = engine.docker(&["volume", "ls", "--quiet"]).unwrap();
    let names = names.lines().filter(|name| !name.starts_with("cove-"));
    names.map(str::to_owned).collect()
}

/// Cancels the run that begins next when it enters the phase.
async fn cancel_at(app: &App, id: SessionId, phase: Phase, count: usize) {
    let sessions = app.sessions.clone();
    app.heard.on_event(move |event| {
        if matches!(event, SessionEvent::Progress(event) if event.phase == phase) {
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.cancel(id).await });
        }
    });
    match app.sessions.status(id).await.unwrap().state {
        SessionState::Ready => app.sessions.rebuild(id, None).await.unwrap(),
        _ => app.sessions.open(id).await.unwrap(),
    };
    let run = app.heard.run(id, count).await;
    check_run(&run);
    app.heard.on_event(|_| ());
    let last = &run.last().unwrap().event;
    assert!(matches!(last, SessionEvent::Cancelled(_)), "{run:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_an_image_declares_go_with_their_container() {
    let Some(engine) = own_engine() else { return };
    let image = TestImage::Volumes.build().unwrap();
    engine.load(&image, "test/volumes:1").unwrap();
    let app = App::on(&engine);
    let id = app.ready(Some("test/volumes:1")).await;
    app.sh(id, "echo kept > /data/one/file");
    let before = nameless_volumes(&engine);
    assert_eq!(before.len(), 2);
    let usage = app.sessions.usage(id).await.unwrap();
    assert_eq!(usage.other_volumes, ["/data/one", "/data/two"]);

    // A rebuild that is cancelled keeps those of the container that comes back, and says what went.
    let name = id.resource_name();
    cancel_at(&app, id, Phase::StartingContainer, 2).await;
    let removed = format!("Removed container `{name}`, and 2 volumes that its image declared");
    let begin = Instant::now();
    loop {
        // A container that starts late is removed late, and that is said then.
        let undone = app.sessions.status(id).await.unwrap().undone;
        if undone.iter().any(|undone| undone.what == removed) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{undone:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(nameless_volumes(&engine), before);
    app.open(id, 3).await;
    assert_eq!(app.sh(id, "cat /data/one/file"), "kept");

    // One that succeeds has its own, and those of the container that is gone are gone.
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 4).await);
    eventually("the end of the old volumes", || {
        let now = nameless_volumes(&engine);
        (now.is_disjoint(&before) && now.len() == 2).then_some(())
    })
    .await;

    app.sessions.delete(id).await.unwrap();
    assert_eq!(nameless_volumes(&engine), BTreeSet::new());
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_another_container_uses_too_outlives_the_session() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::Volumes);
    let id = app.ready(Some(&image)).await;
    app.sh(id, "echo kept > /data/one/file");
    let (name, other) = (id.resource_name(), format!("uses-{id}"));
    let run = ["run", "--detach", "--name", &other, "--volumes-from", &name];
    app.engine()
        .docker(&[&run[..], &[&image, "sleep", "1000"]].concat())
        .unwrap();
    // Its own volume would be in use too, and is not what this is about.
    app.sessions.delete_container(id).await.unwrap();
    let kept = app
        .engine()
        .docker(&["exec", &other, "cat", "/data/one/file"]);
    app.engine()
        .docker(&["rm", "--force", "--volumes", &other])
        .unwrap();
    assert_eq!(kept.unwrap(), "kept");
    app.sessions.delete(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_from_a_session_is_not_the_session() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let (name, twin, image) = (
        id.resource_name(),
        format!("twin-{id}"),
        format!("snapshot:{id}"),
    );
    // A container of an image that was made of the session bears the session's labels.
    app.engine().docker(&["commit", &name, &image]).unwrap();
    let run = ["run", "--detach", "--entrypoint", "sleep", "--name", &twin];
    app.engine()
        .docker(&[&run[..], &[&image, "1000000"]].concat())
        .unwrap();
    // And anybody can give a volume the same labels.
    let label = format!("dev.cove.session={id}");
    let copy = format!("copy-{id}");
    app.engine()
        .docker(&["volume", "create", "--label", &label, &copy])
        .unwrap();
    let runs = |container: &str| {
        let format = ["inspect", "--format", "{{.State.Running}}"];
        app.engine()
            .docker(&[&format[..], &[container]].concat())
            .unwrap()
    };

    app.sessions.stop(id).await.unwrap();
    assert_eq!((runs(&name), runs(&twin)), ("false".into(), "true".into()));
    app.open(id, 2).await;
    let next = app.again();
    let listed = next.sessions.list().await;
    let of_id = listed.iter().filter(|session| session.session_id == id);
    assert_eq!(of_id.count(), 1);
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 3).await);
    app.sessions.delete(id).await.unwrap();
    assert_eq!(runs(&twin), "true");
    let left = app.engine().resources_of(&id.to_string()).unwrap();
    app.engine().docker(&["rm", "--force", &twin]).unwrap();
    app.engine().docker(&["volume", "rm", &copy]).unwrap();
    app.engine().docker(&["rmi", &image]).unwrap();
    assert_eq!((left.containers, left.volumes), (vec![twin], vec![copy]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_bears_labels_of_a_session_makes_none() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::Tiny);
    let id = SessionId::random();
    let labels = [
        format!("dev.cove.session={id}"),
        "dev.cove.workspace=shop".to_owned(),
        "dev.cove.image=docker.io/library/python:3.13".to_owned(),
    ];
    let mut run = vec!["run", "--detach", "--name"];
    let name = format!("poses-as-{id}");
    run.push(&name);
    for label in &labels {
        run.extend(["--label", label]);
    }
    run.extend([image.as_str(), "sleep", "1000000"]);
    app.engine().docker(&run).unwrap();
    let listed = app.sessions.list().await;
    app.sessions.delete(id).await.unwrap();
    let format = ["inspect", "--format", "{{.State.Running}}", &name];
    let runs = app.engine().docker(&format).unwrap();
    app.engine().docker(&["rm", "--force", &name]).unwrap();
    assert!(listed.iter().all(|session| session.session_id != id));
    assert_eq!(runs, "true");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_tampered_with_removes_no_volume_of_anybody_else() {
    let engine = FakeEngine::new();
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| Start {
        journal: Some(folder.path().join(name)),
        ..Start::default()
    };
    let app = App::over(engine.clone(), start("one"));
    engine.next("create_container", Act::Never);
    let id = app.create(None);
    app.heard
        .until(id, |moments| {
            let creates = |event: &SessionEvent| matches!(event, SessionEvent::Progress(event) if event.phase == Phase::CreatingContainer);
            moments.iter().any(|moment| creates(&moment.event)).then_some(())
        })
        .await;
    let file = format!("{id}.json");
    let record = std::fs::read_to_string(folder.path().join("one").join(&file)).unwrap();
    let forged = record
        .replace(
            &format!("\"name\":\"{}\"", id.resource_name()),
            "\"name\":\"somebody-elses\"",
        )
        .replace("\"may_lack_labels\":false", "\"may_lack_labels\":true");
    assert_ne!(forged, record);
    std::fs::create_dir(folder.path().join("two")).unwrap();
    std::fs::write(folder.path().join("two").join(&file), forged).unwrap();
    engine
        .create_volume("somebody-elses", &Labels::new())
        .await
        .unwrap();

    let next = App::over(engine.clone(), start("two"));
    let state = next.sessions.status(id).await.unwrap().state;
    assert_eq!(state, SessionState::Interrupted);
    next.sessions.discard(id).await.unwrap();
    assert!(engine.has_volume("somebody-elses"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_image_is_known_by_what_it_holds() {
    let Some(engine) = own_engine() else { return };
    let name = ImageReference::built_in().to_string();
    let other = TestImage::NonRoot.build().unwrap();
    engine.load(&other, &name).unwrap();
    let app = App::on(&engine);
    let id = app.ready(None).await;
    assert_ne!(app.inspect(id)["Image"], other.id());
    let (_, user) = app.exec(id, "0", &["sed", "-n", "s/^dev:.*/dev/p", "/etc/passwd"]);
    assert_eq!(user, "dev");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_runs_where_the_engine_runs_its_processor() {
    let Some(engine) = own_engine() else { return };
    let app = App::on(&engine);
    let (before, another) = match std::env::consts::ARCH {
        "aarch64" => ("arm", "386"),
        _ => ("386", "arm"),
    };
    let runs = format!("test/{before}:1");
    let image = TestImage::Tiny.build_for(before).unwrap();
    engine.load(&image, &runs).unwrap();
    let id = app.ready(Some(&runs)).await;
    assert_eq!(app.inspect(id)["Image"], image.id());

    let cannot = format!("test/{another}:1");
    engine
        .load(&TestImage::Tiny.build_for(another).unwrap(), &cannot)
        .unwrap();
    let (_, run) = app.create_and_wait(Some(&cannot)).await;
    let error = check_failed(&run, ErrorCode::ImageUnavailable, Some("platform"));
    assert!(error.message.contains("the image is for"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_the_engine_does_not_answer_says_so_in_time() {
    let engine = FakeEngine::new();
    let app = App::over(engine.clone(), Start::default());
    let id = app.ready(None).await;
    engine.next("remove_container", Act::Never);
    let begin = Instant::now();
    let answer = app.sessions.delete(id).await;
    assert!(
        matches!(answer, Err(Error::EngineSilent { .. })),
        "{answer:?}"
    );
    assert!(
        begin.elapsed() <= Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );

    // Nor when it is a run that does not come to its end.
    engine.next("stop_container", Act::Never);
    engine.next("container", Act::Never);
    app.sessions.rebuild(id, None).await.unwrap();
    let begin = Instant::now();
    let answer = app.sessions.delete(id).await;
    assert!(
        begin.elapsed() <= Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    if answer.is_err() {
        assert!(
            matches!(answer, Err(Error::EngineSilent { .. })),
            "{answer:?}"
        );
    }
    app.sessions.delete(id).await.unwrap();
    assert_eq!(engine.holds(), (0, 0));
}
