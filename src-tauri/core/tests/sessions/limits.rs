//! Time: what stands still is ended, what moves is not, and the end of the app is quick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_core::error::ErrorCode;
use cove_core::event::{Phase, SessionEvent};
use cove_core::settings::Settings;
use cove_testbed::{Engine, Proxy, Registry, RegistryOptions, TestImage};

use crate::support::{
    App, Start, check_failed, check_ready, check_run, note, own_engine, progress_of,
};

/// The shortest limit that there is.
fn impatient() -> Start {
    let settings = Settings {
        time_limit_s: 10,
        ..Settings::default()
    };
    Start {
        settings,
        ..Start::default()
    }
}

fn layers() -> (Registry, Proxy, String) {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    let image = format!("{}/layers", proxy.address());
    (registry, proxy, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_stands_still_is_told_and_ended_by_the_limit() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    let app = App::with(&engine, impatient());
    proxy.set_rate(8 << 20);
    let id = app.create(Some(&image));
    let moved = |at: &crate::support::Moment| {
        let (_, progress) = progress_of(&at.event)?;
        (progress.pull?.downloaded_bytes > 1 << 20).then_some(())
    };
    app.heard
        .until(id, |moments| moments.iter().find_map(moved))
        .await;
    proxy.stall();
    let begin = Instant::now();
    let run = app.heard.run(id, 1).await;
    let took = begin.elapsed();
    let error = check_failed(&run, ErrorCode::Timeout, None);
    assert_eq!(error.details["limit_s"], 10);
    assert!((9.5..12.0).contains(&took.as_secs_f64()), "{took:?}");
    let idle = run.iter().filter_map(|moment| progress_of(&moment.event));
    let longest = idle.map(|(_, progress)| progress.idle_ms).max().unwrap();
    assert!(longest > 9_000, "a stall is told as one, {longest}");
    app.check_nothing_is_left(id);

    proxy.resume();
    proxy.unlimited();
    app.open(id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pull_that_moves_outlives_the_limit() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    let app = App::with(&engine, impatient());
    proxy.set_rate(3 << 20);
    let (_, run) = app.create_and_wait(Some(&image)).await;
    check_ready(&run);
    let took = run.last().unwrap().at;
    assert!(took > Duration::from_secs(11), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_runs_and_leaves_ready_sessions_running() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let app = App::on(&Arc::new(engine));
    let ready = app.ready(None).await;
    let started = app.inspect(ready)["State"]["StartedAt"].clone();
    let (sender, reached) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    app.heard.on_event(move |event| {
        if matches!(event, SessionEvent::Progress(event) if event.phase == Phase::CreatingContainer)
            && let Some(sender) = sender.take()
        {
            sender.send(()).unwrap();
        }
    });
    let running = app.create(None);
    reached.await.unwrap();
    let begin = Instant::now();
    app.sessions.shutdown().await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    note(&format!("shutdown in {took:?}"));
    let run = app.heard.run(running, 1).await;
    check_run(&run);
    assert!(
        matches!(run.last().unwrap().event, SessionEvent::Cancelled(_)),
        "{run:#?}"
    );
    app.check_nothing_is_left(running);
    let state = app.inspect(ready)["State"].clone();
    assert_eq!(
        (&state["Running"], &state["StartedAt"]),
        (&true.into(), &started)
    );
}
