//! Pulls: one for all who wait for the same image, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use cove_core::engine::{LayerStep, PullMessage};
use cove_core::error::{EngineCommand, Error, ErrorCode, ImageReason};
use cove_core::event::{Eta, Phase, PullProgress, SessionEvent};
use cove_core::session::SessionId;
use cove_core::timing::{PullTiming, RunOutcome, TimingReport};
use cove_testbed::{Proxy, Registry, RegistryOptions, TestImage};

use crate::support::fake_engine::{Act, FakeEngine, away, refused};
use crate::support::{
    App, Moment, Start, check_failed, check_ready, check_run, eventually, own_engine, progress_of,
};

const MB: u64 = 1_000_000;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn layers() -> (Registry, Proxy, String) {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    let image = format!("{}/layers", proxy.address());
    (registry, proxy, image)
}

/// A pull of one layer of forty megabytes, one of them every half a second.
fn slow_pull() -> Vec<(Duration, PullMessage)> {
    let message = |step| PullMessage {
        layer: "a".to_owned(),
        step,
    };
    let downloading = (1..=40).map(|megabytes| {
        let step = LayerStep::Downloading {
            current: megabytes * MB,
            total: Some(40 * MB),
        };
        (ms(500), message(step))
    });
    std::iter::once((ms(100), message(LayerStep::Announced)))
        .chain(downloading)
        .chain([(ms(100), message(LayerStep::Done))])
        .collect()
}

/// The same with a second layer, of which the engine says nothing but that it is there.
fn slow_pull_of_two() -> Vec<(Duration, PullMessage)> {
    let mut messages = slow_pull();
    let waiting = PullMessage {
        layer: "b".to_owned(),
        step: LayerStep::Announced,
    };
    messages.insert(1, (ms(1), waiting));
    messages
}

/// Starts over a made-up engine that pulls like this.
fn app_that_pulls(engine: &Arc<FakeEngine>, messages: Vec<(Duration, PullMessage)>) -> App {
    engine.pulls(messages);
    App::over(engine.clone(), Start::default())
}

fn timing(run: &[Moment]) -> &TimingReport {
    match &run.last().unwrap().event {
        SessionEvent::Ready(event) => &event.timing,
        SessionEvent::Failed(event) => &event.timing,
        SessionEvent::Cancelled(event) => &event.timing,
        event @ (SessionEvent::Progress(_)
        | SessionEvent::Export(_)
        | SessionEvent::Changed(_)
        | SessionEvent::Transfer(_)) => {
            panic!("{event:?}")
        }
    }
}

fn pull_timing(run: &[Moment]) -> PullTiming {
    timing(run).pull.unwrap()
}

/// What the run told of its pull, in order, without the first moments that have none.
fn pulls(run: &[Moment]) -> Vec<PullProgress> {
    let told = run.iter().filter_map(|moment| progress_of(&moment.event));
    told.filter_map(|(_, progress)| progress.pull).collect()
}

/// Waits until a session has told of more bytes than these.
async fn until_downloaded(app: &App, id: SessionId, bytes: u64) {
    let is_there = |moments: &[Moment]| {
        let told = pulls(moments).last()?.downloaded_bytes;
        (told > bytes).then_some(())
    };
    app.heard.until(id, is_there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_of_one_image_share_one_pull_and_cancelling_one_does_not_stop_the_other() {
    let Some(engine) = own_engine() else { return };
    let (registry, proxy, image) = layers();
    proxy.set_rate(12 << 20);
    let app = App::on(&engine);
    let [first, second, third] = [(); 3].map(|()| app.create(Some(&image)));
    for id in [first, second, third] {
        until_downloaded(&app, id, 8 << 20).await;
    }
    app.sessions.cancel(first).await.unwrap();
    let cancelled = app.heard.run(first, 1).await;
    check_run(&cancelled);
    app.check_nothing_is_left(first);

    let (second, third) = (
        app.heard.run(second, 1).await,
        app.heard.run(third, 1).await,
    );
    check_ready(&second);
    check_ready(&third);
    let began = [&cancelled, &second, &third]
        .into_iter()
        .filter(|run| !pull_timing(run).joined);
    assert_eq!(began.count(), 1);
    let last = pulls(&second).pop().unwrap();
    assert_eq!(Some(last), pulls(&third).pop());
    assert_eq!((last.layers_done, last.layers_total), (9, 9));
    let blobs = registry.requests_for(TestImage::Layers);
    let mut blobs: Vec<_> = blobs
        .into_iter()
        .filter(|request| request.method == "GET" && request.path.contains("/blobs/"))
        .collect();
    let asked = blobs.len();
    blobs.sort_by(|a, b| a.path.cmp(&b.path));
    blobs.dedup();
    assert_eq!(blobs.len(), asked, "nothing is fetched twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_come_from_the_registry_while_the_engine_has_told_only_some() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    proxy.set_rate(12 << 20);
    let app = App::on(&engine);
    let (_, run) = app.create_and_wait(Some(&image)).await;
    check_ready(&run);
    let early = pulls(&run)
        .into_iter()
        .find(|pull| pull.layers_total == 9 && pull.downloaded_bytes > 0);
    let early = early.unwrap();
    assert!(early.downloaded_bytes < 10 << 20, "{early:?}");
    assert!(early.total_is_exact, "{early:?}");
    let last = pulls(&run).pop().unwrap();
    assert_eq!(early.total_bytes, last.total_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_last_who_waits_stops_the_pull_on_the_engine() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    proxy.set_rate(4 << 20);
    let app = App::on(&engine);
    let ids = [(); 2].map(|()| app.create(Some(&image)));
    for id in ids {
        until_downloaded(&app, id, 2 << 20).await;
    }
    app.sessions.cancel(ids[0]).await.unwrap();
    assert!(proxy.open_connections() > 0, "the other still waits");
    app.sessions.cancel(ids[1]).await.unwrap();
    eventually("the end of the engine's downloads", || {
        (proxy.open_connections() == 0).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_ends_with_the_last_run_that_waits_for_it() {
    let engine = FakeEngine::new();
    let app = app_that_pulls(&engine, slow_pull());
    let ids = [(); 2].map(|()| app.create(Some("slow/image")));
    tokio::time::sleep(ms(5_000)).await;
    assert!(engine.is_pulling());
    app.sessions.cancel(ids[0]).await.unwrap();
    tokio::time::sleep(ms(1)).await;
    assert!(engine.is_pulling());
    app.sessions.cancel(ids[1]).await.unwrap();
    tokio::time::sleep(ms(1)).await;
    assert!(!engine.is_pulling());
    assert_eq!(engine.calls("pull"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_fails_fails_for_all_who_wait_and_the_next_one_begins_anew() {
    let engine = FakeEngine::new();
    let failure = Error::ImageUnavailable {
        image: "slow/image".to_owned(),
        reason: ImageReason::Network,
        message: "no such host".to_owned(),
        command: EngineCommand::Docker,
    };
    engine.next("pull", Act::Fail(failure));
    let app = app_that_pulls(&engine, slow_pull());
    let ids = [(); 2].map(|()| app.create(Some("slow/image")));
    for id in ids {
        let run = app.heard.run(id, 1).await;
        check_failed(&run, ErrorCode::ImageUnavailable, Some("network"));
        assert_eq!(timing(&run).outcome, RunOutcome::Failed);
    }
    app.open(ids[0], 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_total_is_a_lower_bound_until_the_registry_has_answered() {
    let engine = FakeEngine::new();
    engine.weighs(&[("sha256:a", 40 * MB), ("sha256:b", 20 * MB)]);
    engine.next("layer_sizes", Act::Late(ms(3_000)));
    let app = app_that_pulls(&engine, slow_pull_of_two());
    let (_, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    let mut totals: Vec<_> = pulls(&run)
        .iter()
        .map(|pull| (pull.total_bytes, pull.total_is_exact))
        .collect();
    totals.dedup();
    assert_eq!(
        totals,
        [(0, false), (40 * MB, false), (60 * MB, true)],
        "the engine told one size, the registry both"
    );
}

#[tokio::test(start_paused = true)]
async fn sizes_that_are_remembered_are_not_asked_for_again() {
    let engine = FakeEngine::new();
    engine.weighs(&[("sha256:a", 40 * MB), ("sha256:b", 20 * MB)]);
    let app = app_that_pulls(&engine, slow_pull_of_two());
    let (_, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    assert_eq!(engine.calls("layer_sizes"), 1);

    engine.pulls(slow_pull_of_two());
    let (_, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    assert_eq!(engine.calls("pull"), 2);
    assert_eq!(engine.calls("layer_sizes"), 1);
    assert!(pulls(&run).iter().skip(1).all(|pull| pull.total_is_exact));
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_told_after_three_seconds_with_the_layer_that_is_waited_for() {
    let engine = FakeEngine::new();
    let mut messages = slow_pull();
    messages[20].0 = ms(9_000);
    let app = app_that_pulls(&engine, messages);
    let (_, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    let told = run.iter().filter_map(|moment| progress_of(&moment.event));
    let stalls: Vec<_> = told
        .filter_map(|(phase, progress)| match &progress.eta {
            Eta::Stalled { idle_ms, layer } => Some((phase, *idle_ms, layer.clone())),
            Eta::Calculating | Eta::Point { .. } | Eta::Range { .. } => None,
        })
        .collect();
    assert!(stalls.len() >= 20, "{stalls:?}");
    for (phase, idle_ms, layer) in stalls {
        assert_eq!((phase, layer.as_deref()), (Phase::PullingImage, Some("a")));
        assert!((2_750..9_001).contains(&idle_ms), "{idle_ms}");
    }
    let report = timing(&run);
    assert_eq!(report.pull.unwrap().stalled_ms, 9_000);
    assert_eq!(report.verdict, "The pull stood still for 9.0 s.");
}

#[tokio::test(start_paused = true)]
async fn where_the_time_of_the_last_run_went_is_known_after_a_restart_and_gone_with_its_session() {
    let engine = FakeEngine::new();
    let app = app_that_pulls(&engine, slow_pull());
    let (id, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    let told = timing(&run).clone();
    assert_eq!(told.outcome, RunOutcome::Ready);
    assert_eq!(told.phases.len(), 5);
    let status = app.sessions.status(id).await.unwrap();
    assert_eq!(status.timing, Some(told.clone()));

    let history = app.kept.histories.lock().unwrap().last().cloned().unwrap();
    let start = Start {
        history,
        ..Start::default()
    };
    let later = App::over(engine.clone(), start);
    let status = later.sessions.status(id).await.unwrap();
    assert_eq!(status.timing, Some(told));
    later.sessions.delete(id).await.unwrap();
    let kept = later
        .kept
        .histories
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    assert_eq!(kept.report(&id.to_string()), None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_and_a_cancelled_run_say_where_their_time_went() {
    let engine = FakeEngine::new();
    engine.next("create_container", Act::Late(ms(2_000)));
    let refusal = refused("start the container", "no");
    engine.next("start_container", Act::Fail(refusal));
    let app = App::over(engine.clone(), Start::default());
    let (id, run) = app.create_and_wait(None).await;
    let report = timing(&run);
    assert_eq!(report.outcome, RunOutcome::Failed);
    let phases: Vec<_> = report
        .phases
        .iter()
        .map(|phase| (phase.phase, phase.took_ms))
        .collect();
    assert_eq!(
        phases,
        [
            (Phase::Starting, 0),
            (Phase::PullingImage, 0),
            (Phase::CreatingVolume, 0),
            (Phase::CreatingContainer, 2_000),
            (Phase::StartingContainer, 0),
        ]
    );
    assert_eq!(
        report.verdict,
        "Most of the time went into creating the container (2.0 s)."
    );

    engine.next("create_container", Act::Never);
    app.sessions.open(id).await.unwrap();
    tokio::time::sleep(ms(3_000)).await;
    app.sessions.cancel(id).await.unwrap();
    let run = app.heard.run(id, 2).await;
    assert_eq!(timing(&run).outcome, RunOutcome::Cancelled);
    assert!(timing(&run).total_ms >= 3_000);
}

#[tokio::test(start_paused = true)]
async fn however_fast_an_engine_talks_a_session_tells_ten_things_a_second_at_most() {
    let engine = FakeEngine::new();
    let messages = (0..50_000).map(|count| {
        let step = LayerStep::Downloading {
            current: count,
            total: Some(50_000),
        };
        let message = PullMessage {
            layer: "a".to_owned(),
            step,
        };
        (
            Duration::from_micros(u64::from(count % 10 == 0) * 1_000),
            message,
        )
    });
    let app = app_that_pulls(&engine, messages.collect());
    let (_, run) = app.create_and_wait(Some("chatty/image")).await;
    check_ready(&run);
    assert!(run.last().unwrap().at >= ms(5_000));
}

#[tokio::test(start_paused = true)]
async fn a_credential_helper_that_is_waited_for_is_named_and_can_be_cancelled() {
    let engine = FakeEngine::new();
    engine.asks_a_helper(ms(5_000));
    let app = app_that_pulls(&engine, slow_pull());
    let ids = [(); 2].map(|()| app.create(Some("slow/image")));
    let message = async |id| app.sessions.status(id).await.unwrap().message;
    tokio::time::sleep(ms(1_000)).await;
    for id in ids {
        assert_eq!(message(id).await, "Waiting for docker-credential-fake");
    }
    app.sessions.cancel(ids[0]).await.unwrap();
    tokio::time::sleep(ms(5_000)).await;
    assert_eq!(message(ids[1]).await, "Pulling slow/image:latest");
    assert_eq!(engine.calls("pull"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_whose_stream_breaks_is_begun_anew_while_the_engine_answers() {
    let engine = FakeEngine::new();
    engine.pulls(slow_pull());
    for _ in 0..2 {
        engine.next("pull", Act::Lost(ms(3_000)));
    }
    let app = App::over(engine.clone(), Start::default());
    let (_, run) = app.create_and_wait(Some("slow/image")).await;
    check_ready(&run);
    assert_eq!(engine.calls("pull"), 3);

    // It is not begun for ever, nor on an engine that is gone.
    for (breaks, facts, pulls) in [(3, None, 3), (1, Some(Act::Fail(away())), 1)] {
        let engine = FakeEngine::new();
        engine.pulls(slow_pull());
        for _ in 0..breaks {
            engine.next("pull", Act::Lost(ms(3_000)));
        }
        if let Some(facts) = facts {
            // The first is asked when the run begins.
            engine.next("facts", Act::Late(ms(0))).next("facts", facts);
        }
        let app = App::over(engine.clone(), Start::default());
        let (_, run) = app.create_and_wait(Some("slow/image")).await;
        check_failed(&run, ErrorCode::EngineUnavailable, Some("not_running"));
        assert_eq!(engine.calls("pull"), pulls);
    }
}
