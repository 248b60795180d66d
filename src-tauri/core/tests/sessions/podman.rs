//! The same promises on Podman, which speaks the same API in words of its own.

use std::sync::Arc;

use cove_core::session::SessionState;
use cove_testbed::{Engine, EngineKind, EngineOptions, TestImage};

#[cfg(unix)]
use crate::environment;
use crate::figures::{check_figures, check_log};
use crate::limits::{check_process_limit, check_work};
use crate::ports::{forwarded, get, serve};
use crate::support::{App, check_ready, eventually};
use crate::users::{
    check_linked_workspaces, check_privilege_gain, check_unknown_users, check_unusable_workspaces,
};

/// Starts a Podman; `None` where none can be, which is then noted.
fn podman() -> Option<Arc<Engine>> {
    if let Some(reason) = Engine::cannot_start_podman() {
        cove_testbed::skip(reason);
        return None;
    }
    let options = EngineOptions {
        kind: EngineKind::Podman,
        ..EngineOptions::default()
    };
    Some(Arc::new(Engine::start_with(options).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_on_podman_as_on_docker() {
    let Some(engine) = podman() else { return };
    let app = App::on(&engine);
    let id = app.ready(None).await;
    let path = "/workspace/file";
    let written = app
        .session(id)
        .await
        .write_file(
            path,
            "kept".to_owned(),
            cove_core::files::Encoding::Utf8,
            None,
        )
        .await;
    written.unwrap();

    app.sessions.stop(id).await.unwrap();
    let state = app.sessions.status(id).await.unwrap().state;
    assert_eq!(state, SessionState::Stopped);
    app.open(id, 2).await;
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 3).await);
    let content = app.session(id).await.read_file(path).await.unwrap().content;
    assert_eq!(content, "kept");

    let copy = app.sessions.duplicate(id, Some("second")).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    let content = app
        .session(copy)
        .await
        .read_file(path)
        .await
        .unwrap()
        .content;
    assert_eq!(content, "kept");

    for id in [id, copy] {
        app.sessions.delete(id).await.unwrap();
        app.check_nothing_is_left(id);
    }
    assert_eq!(app.sessions.list().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_this_machine_is_found_by_its_short_name_on_podman() {
    let Some(engine) = podman() else { return };
    let image = TestImage::Volumes.build().unwrap();
    engine.load(&image, "localhost/trial/own:1").unwrap();
    let app = App::on(&engine);
    let id = app.ready(Some("trial/own:1")).await;
    // Its own volume, and the two that the image declares.
    let volumes = || {
        let names = engine.docker(&["volume", "ls", "--quiet"]).unwrap();
        names.lines().count()
    };
    assert_eq!(volumes(), 3);
    app.sessions.delete(id).await.unwrap();
    assert_eq!(volumes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_only_podman_says_hides_no_session() {
    let Some(engine) = podman() else { return };
    let app = App::on(&engine);
    let ended = app.ready(None).await;
    let runs = app.ready(None).await;
    engine.stop_tidying_up().unwrap();
    // Somebody ends the container's process; Podman has nobody then who would call it exited.
    app.exec(ended, "0", &["kill", "-9", "-1"]);
    app.exec(ended, "0", &["kill", "-TERM", "1"]);
    let path = format!("/containers/{}/json", ended.resource_name());
    eventually("Podman's own word", || {
        let found = engine.look(&path, std::time::Duration::from_secs(5));
        let found = found.unwrap().unwrap();
        (found["State"]["Status"] == "stopped").then_some(())
    })
    .await;

    let next = app.again();
    let listed = next.sessions.list().await;
    let states: Vec<_> = listed.iter().map(|session| session.session_id).collect();
    assert!(
        states.contains(&ended) && states.contains(&runs),
        "{listed:?}"
    );
    // The other one is as ready as before, and this one can be looked at, opened and deleted.
    assert!(app.session(runs).await.list_dir("/workspace").await.is_ok());
    let state = app.sessions.status(runs).await.unwrap().state;
    assert_eq!(state, SessionState::Ready);
    next.sessions.usage(ended).await.unwrap();
    next.sessions.delete(ended).await.unwrap();
    next.check_nothing_is_left(ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_cannot_be_sessions_are_refused_with_the_reason_on_podman() {
    let Some(engine) = podman() else { return };
    let app = App::on(&engine);
    check_unknown_users(&app).await;
    check_unusable_workspaces(&app).await;
    check_linked_workspaces(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_environment_of_its_image_on_podman() {
    let Some(engine) = podman() else { return };
    let app = App::on(&engine);
    let reference = environment::in_busybox(&app);
    environment::check(&app, &reference, "app", "sh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_become_root_only_where_that_was_allowed_on_podman() {
    let Some(engine) = podman() else { return };
    check_privilege_gain(&App::on(&engine)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_processes_are_used_up_stays_usable_on_podman() {
    let Some(engine) = podman() else { return };
    check_process_limit(&engine, &[None]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_do_is_seen_on_podman() {
    let Some(engine) = podman() else { return };
    check_work(&App::on(&engine)).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn figures_and_the_log_are_told_on_podman() {
    let Some(engine) = podman() else { return };
    check_figures(&engine, EngineKind::Podman).await;
    check_log(&App::on(&engine)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_seen_and_forwarded_on_podman() {
    let Some(engine) = podman() else { return };
    let app = App::on(&engine);
    let id = app.ready(None).await;
    app.sh(id, "echo there > /workspace/index.html");
    serve(
        &app,
        id,
        "cd /workspace; exec busybox httpd -f -p 127.0.0.1:18180",
    );
    let local = forwarded(&app, id, 18_180).await;
    for _ in 0..20 {
        assert!(get(local, "/").await.unwrap().ends_with(b"there\n"));
    }
    app.sessions.shutdown().await;
}
