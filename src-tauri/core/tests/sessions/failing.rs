//! Failures that a user meets: each has its code and reason, and leaves nothing behind.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use cove_core::error::ErrorCode;
use cove_core::event::{Phase, SessionEvent};
use cove_core::session::SessionState;
use cove_testbed::{Engine, Proxy, Registry, RegistryOptions, TestImage, skip};
use serde_json::json;

use crate::support::slow_engine::{Held, SlowEngine};
use crate::support::{App, Start, check_failed, check_ready, check_run, shared_registry};

/// The environment of a process that is a test itself, run with settings of its own.
const CHILD: &str = "COVE_TEST_PRIVATE_CHILD";

/// A session of this image fails for this reason, and nothing is left of it.
async fn check_image(app: &App, image: &str, reason: &str) {
    let (id, run) = app.create_and_wait(Some(image)).await;
    let error = check_failed(&run, ErrorCode::ImageUnavailable, Some(reason));
    assert!(error.message.contains(image), "{}", error.message);
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_fails_and_becomes_ready_by_retry_when_it_appears() {
    let Some(app) = App::shared() else { return };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let image = registry.reference(TestImage::Tiny);
    check_image(&app, &image, "not_found").await;

    let (id, _) = app.create_and_wait(Some(&image)).await;
    assert_eq!(
        app.sessions.status(id).await.unwrap().state,
        SessionState::Failed
    );
    registry.publish(TestImage::Tiny).unwrap();
    let run = app.open(id, 2).await;
    assert_eq!(run[0].event.session_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tag_of_a_known_image_is_not_found() {
    let Some(app) = App::shared() else { return };
    let image = format!("{}/tiny:no-such-tag", shared_registry().address());
    check_image(&app, &image, "not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_without_credentials_is_unauthorized() {
    let Some(app) = App::shared() else { return };
    let registry = Registry::private_from_env().unwrap();
    // Another port of the same registry: no test has logged in there.
    let proxy = Proxy::start(registry.address()).unwrap();
    check_image(
        &app,
        &format!("{}/private/app:latest", proxy.address()),
        "unauthorized",
    )
    .await;
}

/// The credentials are found by the environment, so this test runs itself with one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_pulled_with_the_users_credentials() {
    if std::env::var_os(CHILD).is_some() {
        let app = App::shared().unwrap();
        let image = std::env::var(CHILD).unwrap();
        let (_, run) = app.create_and_wait(Some(&image)).await;
        return check_ready(&run);
    }
    if Engine::from_env_or_skip().is_none() {
        return;
    }
    let registry = Registry::private_from_env().unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    let user = registry.credentials().unwrap();
    let auth = format!("{}:{}", user.username, user.password);
    let auth = base64::engine::general_purpose::STANDARD.encode(auth);
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "auths": { proxy.address(): { "auth": auth } } });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("failing::a_private_image_is_pulled_with_the_users_credentials")
        .env("DOCKER_CONFIG", folder.path())
        .env(CHILD, format!("{}/private/app", proxy.address()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_processor_is_refused() {
    let Some(app) = App::shared() else { return };
    check_image(
        &app,
        &shared_registry().reference(TestImage::WrongArch),
        "platform",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_a_matter_of_the_network() {
    let Some(app) = App::shared() else { return };
    let proxy = Proxy::start(shared_registry().address()).unwrap();
    let image = format!("{}/tiny:latest", proxy.address());
    proxy.refuse();
    check_image(&app, &image, "network").await;

    let (id, _) = app.create_and_wait(Some(&image)).await;
    proxy.resume();
    app.open(id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_network_the_built_in_image_becomes_ready() {
    let Some(app) = App::shared() else { return };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Tiny).unwrap();
    let image = registry.reference(TestImage::Tiny);
    app.ready(Some(&image)).await;
    registry.stop();
    app.ready(Some(&image)).await;
    app.ready(None).await;
}

/// Somebody else takes the name at this moment; theirs is neither used nor touched.
async fn check_conflict(phase: Phase, kind: &'static str) {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::Tiny);
    app.engine().docker(&["pull", "--quiet", &image]).unwrap();
    let (outside, theirs) = (app.again(), Arc::new(Mutex::new(None)));
    let (made, wanted) = (Arc::clone(&theirs), image.clone());
    app.heard.on_event(move |event| {
        let SessionEvent::Progress(event) = event else {
            return;
        };
        let mut made = made.lock().unwrap();
        if event.phase == phase && made.is_none() {
            let name = event.session_id.resource_name();
            let create: &[&str] = match kind {
                "container" => &["create", "--name", &name, &wanted],
                _ => &["volume", "create", &name],
            };
            *made = Some(outside.engine().docker(create).unwrap());
        }
    });
    let (id, run) = app.create_and_wait(Some(&image)).await;
    let error = check_failed(&run, ErrorCode::NameConflict, None);
    let name = id.resource_name();
    assert_eq!(error.details["name"], name);
    assert_eq!(error.details["kind"], kind);
    assert!(error.hint.contains(&name), "{error:?}");
    let their_id = theirs.lock().unwrap().clone().unwrap();
    app.sessions.delete(id).await.unwrap();
    let left = app.engine().resources_of(&id.to_string()).unwrap();
    match kind {
        "container" => {
            assert_eq!(app.inspect(id)["Id"], their_id);
            assert_eq!((left.containers, left.volumes), (vec![name], vec![]));
        }
        _ => assert_eq!((left.containers, left.volumes), (vec![], vec![name])),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_container_of_the_same_name_is_a_conflict_and_stays() {
    check_conflict(Phase::Starting, "container").await;
    check_conflict(Phase::CreatingContainer, "container").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_volume_of_the_same_name_is_a_conflict_and_stays() {
    check_conflict(Phase::Starting, "volume").await;
    check_conflict(Phase::CreatingVolume, "volume").await;
}

/// No engine can be used at this address, for this reason; both the run and the survey say so.
async fn check_engine(address: &str, reason: &str) {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let app = App::through(&Arc::new(engine), address, Start::default());
    let (id, run) = app.create_and_wait(None).await;
    let error = check_failed(&run, ErrorCode::EngineUnavailable, Some(reason));
    assert!(error.message.contains(address), "{}", error.message);
    app.check_nothing_is_left(id);
    let engines = app.sessions.engines().await;
    let problem = engines[0].problem.clone().unwrap();
    assert_eq!(
        (json!(problem.reason), engines[0].selected),
        (json!(reason), false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_chosen_and_leads_nowhere_is_said_to_be_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.sock");
    check_engine(&format!("unix://{}", path.display()), "unreachable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_dead_socket_no_engine_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.sock");
    drop(UnixListener::bind(&path).unwrap());
    check_engine(&format!("unix://{}", path.display()), "not_running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_somebody_else_is_a_matter_of_permission() {
    if is_root() {
        return skip("root may use every socket");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&path, nobody).unwrap();
    check_engine(&format!("unix://{}", path.display()), "no_permission").await;
}

fn is_root() -> bool {
    // The owner of what this process makes is its user.
    use std::os::unix::fs::MetadataExt;
    tempfile::tempfile().unwrap().metadata().unwrap().uid() == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_vanishes_in_the_middle_is_told_and_the_rest_is_found_when_it_is_back() {
    let Some(app) = App::shared() else { return };
    let engine = Arc::new(Engine::from_env().unwrap());
    let slow = SlowEngine::start(
        engine.socket(),
        "nothing is held",
        Held::Answer,
        std::time::Duration::ZERO,
    );
    let cut = App::through(&engine, &slow.address(), Start::default());
    let socket = slow.address().replace("unix://", "");
    let mut line = Some(slow);
    cut.heard.on_event(move |event| {
        if matches!(event, SessionEvent::Progress(event) if event.phase == Phase::StartingContainer)
        {
            drop(line.take());
            while std::os::unix::net::UnixStream::connect(&socket).is_ok() {}
        }
    });
    let (id, run) = cut.create_and_wait(None).await;
    check_run(&run);
    let SessionEvent::Failed(failed) = &run.last().unwrap().event else {
        panic!("{run:#?}");
    };
    assert_eq!(
        failed.error.error,
        ErrorCode::EngineUnavailable,
        "{failed:#?}"
    );
    // What could not be taken back is said, and a later look at the engine finds it.
    assert!(
        failed.undone.iter().all(|undone| undone.failure.is_some()),
        "{failed:#?}"
    );
    // Volume, container and network.
    assert_eq!(failed.undone.len(), 3, "{failed:#?}");
    let found = app.sessions.list().await;
    let found = found
        .iter()
        .find(|session| session.session_id == id)
        .unwrap();
    assert!(
        matches!(
            found.state,
            SessionState::Interrupted | SessionState::Stopped
        ),
        "{found:?}"
    );
    app.sessions.delete(id).await.unwrap();
    app.check_nothing_is_left(id);
}
