//! Open, stop, delete, restart: sessions live on the engine, and the app may come and go.

use std::time::{Duration, Instant};

use cove_core::error::{Error, ErrorCode};
use cove_core::event::{ExportOutcome, Phase, SessionEvent};
use cove_core::session::{SessionId, SessionState, Source};
use cove_testbed::TestImage;

use crate::support::{
    App, Start, check_failed, check_ready, check_run, eventually, shared_registry,
};

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
    assert!(next.session(id).await.list_dir("/workspace").await.is_ok());
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
    let refused = app.sessions.ready(id).await.err();
    assert!(
        matches!(refused, Some(Error::SessionNotReady("stopped"))),
        "{refused:?}"
    );
    app.open(id, 2).await;
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
            SessionEvent::Progress(_)
            | SessionEvent::Failed(_)
            | SessionEvent::Export(_)
            | SessionEvent::Transfer(_)
            | SessionEvent::Changed(_) => {
                panic!("{run:#?}")
            }
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
    let after = find(app.again().sessions.list().await);
    // Each start of the app counts its events from the beginning.
    let seq = before.seq;
    assert_eq!(cove_core::session::Session { seq, ..after }, before);
    assert_eq!(before.state, SessionState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_the_name_that_it_was_given() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    for (wrong, problem) in [("  ", "must not be empty"), ("a\u{7}", "control")] {
        let Err(Error::Validation(fields)) = app.sessions.rename(id, wrong).await else {
            panic!("{wrong:?} was accepted");
        };
        assert!(fields["name"].contains(problem), "{fields:?}");
    }
    assert_eq!(app.sessions.rename(id, " api ").await.unwrap(), "api");
    assert_eq!(app.sessions.status(id).await.unwrap().session.name, "api");
    let names = app.kept.names.lock().unwrap().clone();
    let next = App::with(
        &std::sync::Arc::new(cove_testbed::Engine::from_env().unwrap()),
        Start {
            names,
            ..Start::default()
        },
    );
    assert_eq!(next.sessions.status(id).await.unwrap().session.name, "api");
    // A new container bears the name in its labels.
    next.sessions.rebuild(id, None).await.unwrap();
    check_ready(&next.heard.run(id, 1).await);
    assert_eq!(
        next.inspect(id)["Config"]["Labels"]["dev.cove.project"],
        "api"
    );
    app.sessions.delete(id).await.unwrap();
    assert!(app.kept.names.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_session_has_a_new_container_and_the_old_files() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::Tiny);
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file; echo old > /root/mark");
    let mut settings = app.sessions.settings();
    settings.memory_limit_mb = Some(64);
    app.sessions.set_settings(settings).unwrap();
    let before = app.inspect(id)["Id"].clone();
    let (one, two) = tokio::join!(
        app.sessions.rebuild(id, Some(&image)),
        app.sessions.rebuild(id, Some(&image))
    );
    assert_eq!(
        (one.unwrap().state, two.unwrap().state),
        (SessionState::Provisioning, SessionState::Provisioning)
    );
    check_ready(&app.heard.run(id, 2).await);
    let container = app.inspect(id);
    assert_ne!(container["Id"], before);
    let images = ["images", "--no-trunc", "--quiet", &image];
    assert_eq!(container["Image"], app.engine().docker(&images).unwrap());
    assert_eq!(container["HostConfig"]["Memory"], 64 << 20);
    let content = app.read(id, "/workspace/file").await;
    assert_eq!(content, "kept\n");
    // The old container goes when the new one is ready.
    eventually("the end of the old container", || {
        let left = app.engine().resources_of(&id.to_string()).unwrap();
        assert_eq!(left.volumes.len(), 1);
        (left.containers.len() == 1).then_some(())
    })
    .await;
    assert_eq!(app.inspect(id)["Id"], container["Id"]);
    let refused = app.sessions.rebuild(id, Some("Not An Image")).await;
    assert!(matches!(refused, Err(Error::Validation(_))), "{refused:?}");
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_fails_gives_the_old_container_back() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "echo old > /root/mark");
    let before = app.inspect(id)["Id"].clone();
    let image = app.sessions.status(id).await.unwrap().session.image;
    // One that is not there, and one whose processor nobody has: before and after the old one is aside.
    let missing = format!("{}/none:1", shared_registry().address());
    app.sessions.rebuild(id, Some(&missing)).await.unwrap();
    let run = app.heard.run(id, 2).await;
    check_failed(&run, ErrorCode::ImageUnavailable, Some("not_found"));
    let name = id.resource_name();
    let (sessions, mut is_cancelled) = (app.sessions.clone(), false);
    app.heard.on_event(move |event| {
        let SessionEvent::Progress(event) = event else {
            return;
        };
        if event.phase == Phase::StartingContainer && !is_cancelled {
            is_cancelled = true;
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.cancel(id).await });
        }
    });
    app.sessions.rebuild(id, None).await.unwrap();
    let run = app.heard.run(id, 3).await;
    let SessionEvent::Cancelled(cancelled) = &run.last().unwrap().event else {
        panic!("{run:#?}");
    };
    let undone: Vec<_> = cancelled.undone.iter().map(|undone| &undone.what).collect();
    assert_eq!(
        undone,
        [
            &format!("Removed container `{name}`"),
            &format!("Put back container `{name}`"),
            &format!("Started container `{name}` again"),
        ]
    );
    let container = app.inspect(id);
    assert_eq!(
        (&container["Id"], &container["State"]["Running"]),
        (&before, &true.into())
    );
    assert_eq!(app.sh(id, "cat /root/mark"), "old");
    assert_eq!(app.sessions.status(id).await.unwrap().session.image, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_has_the_files_and_goes_its_own_way() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace; echo one > a; mkdir d; ln -s a link; ln a hard; echo x > d/run; chmod 750 d/run; chown 7:8 d/run",
    );
    let copy = app.sessions.duplicate(id, Some("second")).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    let listing = "cd /workspace; stat -c '%n %s %a %u %g %h %Y' a d link hard d/run; stat -c '%a %u %g' .; readlink link; cat a d/run";
    assert_eq!(app.sh(copy, listing), app.sh(id, listing));
    let session = app.sessions.status(copy).await.unwrap().session;
    assert_eq!(session.project_name.as_deref(), Some("second"));
    app.sh(copy, "echo two > /workspace/a");
    app.sessions.delete(copy).await.unwrap();
    app.check_nothing_is_left(copy);
    assert_eq!(app.sh(id, "cat /workspace/a"), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_out_as_an_archive_and_come_back_into_another_session() {
    let Some(app) = App::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.tar");
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace; mkdir -p src; echo hello > src/a; head -c 3000000 /dev/urandom > big; touch -d '2001-02-03 04:05:06' big src/a src .",
    );
    let usage = app.sessions.usage(id).await.unwrap();
    assert_eq!(
        (usage.size_bytes, usage.at_least, usage.modified_ms),
        (Some(3_000_006), false, Some(981_173_106_000))
    );
    app.sessions.export(id, path.clone()).await.unwrap();
    let exported = async |id, count| {
        app.heard
            .until(id, |moments| {
                let ends = moments.iter().filter_map(|moment| match &moment.event {
                    SessionEvent::Export(event) => event.outcome,
                    _ => None,
                });
                ends.collect::<Vec<_>>().get(count).copied()
            })
            .await
    };
    assert_eq!(exported(id, 0).await, ExportOutcome::Done);
    let sum = "cd /workspace; cat big src/a | md5sum";
    let source = Source::Archive { path: path.clone() };
    let request = serde_json::json!({ "workspace_id": "tests" });
    let import = app.sessions.create_from(&request, Some(source)).unwrap();
    app.adopt(import);
    check_ready(&app.heard.run(import, 1).await);
    assert_eq!(app.sh(import, sum), app.sh(id, sum));

    // Who owned the files where they come from is nobody here: they are the image's user's.
    app.sh(id, "cd /workspace; chown -R 501:20 .; chmod -R go-w .");
    app.sessions.export(id, path.clone()).await.unwrap();
    assert_eq!(exported(id, 1).await, ExportOutcome::Done);
    let source = Source::Archive { path: path.clone() };
    let image = shared_registry().reference(TestImage::NonRoot);
    let request_of = serde_json::json!({ "workspace_id": "tests", "image": image });
    let others = app.sessions.create_from(&request_of, Some(source)).unwrap();
    app.adopt(others);
    check_ready(&app.heard.run(others, 1).await);
    let change = "cd /workspace; echo more >> src/a; mv big bigger; cat src/a";
    let (done, text) = app.exec(others, "1234", &["sh", "-c", change]);
    assert!(done && text == "hello\nmore", "{text}");

    // What cannot be written leaves no half archive, and what is no archive leaves no session.
    app.sessions
        .export(id, folder.path().join("none/x.tar"))
        .await
        .unwrap();
    assert_eq!(exported(id, 2).await, ExportOutcome::Failed);
    std::fs::write(&path, "this is no archive").unwrap();
    let source = Source::Archive { path };
    let wrong = app.sessions.create_from(&request, Some(source)).unwrap();
    app.adopt(wrong);
    let error = check_failed(
        &app.heard.run(wrong, 1).await,
        ErrorCode::ValidationError,
        None,
    );
    assert!(error.details["fields"]["archive"].is_string(), "{error:?}");
    app.check_nothing_is_left(wrong);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_deleted_session_can_be_kept_and_opened_again() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file");
    app.sessions.delete_container(id).await.unwrap();
    let left = app.engine().resources_of(&id.to_string()).unwrap();
    assert_eq!((left.containers.len(), left.volumes.len()), (0, 1));
    let listed = app.again().sessions.list().await;
    let kept = listed
        .iter()
        .find(|session| session.session_id == id)
        .unwrap();
    assert_eq!(
        (kept.state, kept.has_container),
        (SessionState::Stopped, false)
    );
    assert_eq!(app.sessions.usage(id).await.unwrap().size_bytes, None);
    app.open(id, 2).await;
    assert_eq!(app.sh(id, "cat /workspace/file"), "kept");
    app.sessions.delete_container(id).await.unwrap();
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_a_new_start_of_the_same_container() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let before = app.inspect(id);
    app.sessions.restart(id).await.unwrap();
    check_ready(&app.heard.run(id, 2).await);
    let after = app.inspect(id);
    assert_eq!(after["Id"], before["Id"]);
    assert_ne!(after["State"]["StartedAt"], before["State"]["StartedAt"]);
}

/// A program that needs three seconds after SIGTERM to write what it holds.
const SLOW: &str = "trap 'sleep 3; echo clean >> /workspace/log; exit' TERM; echo up > /workspace/up; while :; do sleep 0.1; done";

/// Starts a program in a session's container, as `docker exec --detach` does, and waits until it runs.
async fn start_program(app: &App, id: SessionId, script: &str) {
    app.sh(id, "rm -f /workspace/up");
    let name = id.resource_name();
    // Nobody reads what a detached command prints, and a shell that reports a signal would end by SIGPIPE.
    let script = format!("exec >/dev/null 2>&1; {script}");
    app.engine()
        .docker(&["exec", "--detach", &name, "setsid", "sh", "-c", &script])
        .unwrap();
    eventually("the program", || {
        let (is_up, _) = app.exec(id, "0", &["test", "-s", "/workspace/up"]);
        is_up.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_a_restart_and_a_rebuild_give_programs_the_time_to_write_what_they_hold() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let lines = |app: &App| app.sh(id, "cat /workspace/log");
    start_program(&app, id, SLOW).await;
    app.sessions.stop(id).await.unwrap();
    app.open(id, 2).await;
    assert_eq!(lines(&app), "clean");

    start_program(&app, id, SLOW).await;
    app.sessions.restart(id).await.unwrap();
    check_ready(&app.heard.run(id, 3).await);
    assert_eq!(lines(&app), "clean\nclean");

    start_program(&app, id, SLOW).await;
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 4).await);
    assert_eq!(lines(&app), "clean\nclean\nclean");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_now_waits_for_no_program() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let stubborn = "trap '' TERM HUP; echo up > /workspace/up; while :; do sleep 0.1; done";
    start_program(&app, id, stubborn).await;
    let impatient = async || {
        let is_ending = || app.sessions.seen(id).session.unwrap().ending;
        while !is_ending() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        app.sessions.stop_now(id).await.unwrap();
    };
    let begin = std::time::Instant::now();
    let (stopped, ()) = tokio::join!(app.sessions.stop(id), impatient());
    stopped.unwrap();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(app.inspect(id)["State"]["Running"], false);
    assert!(!app.sessions.seen(id).session.unwrap().ending);

    // What is made ready again after its programs have ended is, and stays so.
    app.open(id, 2).await;
    start_program(&app, id, stubborn).await;
    let begin = std::time::Instant::now();
    let (restarted, ()) = tokio::join!(app.sessions.restart(id), impatient());
    restarted.unwrap();
    check_ready(&app.heard.run(id, 3).await);
    start_program(&app, id, stubborn).await;
    app.sessions.rebuild(id, None).await.unwrap();
    impatient().await;
    check_ready(&app.heard.run(id, 4).await);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(16), "{took:?}");
    let session = app.sessions.seen(id).session.unwrap();
    assert_eq!(
        (session.state, session.ending),
        (SessionState::Ready, false)
    );
}
