//! Cancel: in every phase, at any moment, with an engine that is quick or slow.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cove_core::event::{Phase, SessionEvent};
use cove_core::session::SessionState;
use cove_testbed::{Engine, Proxy, Random, Registry, RegistryOptions, TestImage};

use crate::support::slow_engine::{Held, SlowEngine};
use crate::support::{App, Start, check_run, note, own_engine, shared_registry};

/// The promise.
const LIMIT: Duration = Duration::from_secs(2);

/// When the cancel was sent, and when it had been answered.
type Sent = Arc<Mutex<Option<(Instant, Option<Duration>)>>>;

/// Cancels the next session when it enters a phase, or some time after.
fn cancel_at(app: &App, phase: Phase, delay: Duration) -> Sent {
    let (sessions, sent) = (app.sessions.clone(), Sent::default());
    let told = Arc::clone(&sent);
    app.heard.on_event(move |event| {
        let SessionEvent::Progress(event) = event else {
            return;
        };
        if event.phase != phase || sent.lock().unwrap().is_some() {
            return;
        }
        let begin = Instant::now() + delay;
        *sent.lock().unwrap() = Some((begin, None));
        let (sessions, sent, id) = (sessions.clone(), Arc::clone(&sent), event.session_id);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            sessions.cancel(id).await.unwrap();
            *sent.lock().unwrap() = Some((begin, Some(begin.elapsed())));
        });
    });
    told
}

/// Creates a session and cancels it. It ends in time and leaves nothing, unless it was ready
/// first. Returns how long the cancel took.
async fn check(app: &App, image: Option<&str>, phase: Phase, delay: Duration) -> Option<Duration> {
    let sent = cancel_at(app, phase, delay);
    let (id, run) = app.create_and_wait(image).await;
    check_run(&run);
    let context = format!("{phase:?} after {delay:?}: {:?}", run.last());
    let SessionEvent::Cancelled(cancelled) = &run.last().unwrap().event else {
        assert!(
            matches!(run.last().unwrap().event, SessionEvent::Ready(_)),
            "{context}"
        );
        return None;
    };
    assert!(
        cancelled
            .undone
            .iter()
            .all(|undone| undone.failure.is_none()),
        "{context}"
    );
    let took = crate::support::eventually("the answer", || sent.lock().unwrap().unwrap().1).await;
    assert!(took < LIMIT, "{took:?}, {context}");
    app.check_nothing_is_left(id);
    assert_eq!(
        app.sessions.status(id).await.unwrap().state,
        SessionState::Cancelled
    );
    Some(took)
}

fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort();
    let (median, last) = (latencies[latencies.len() / 2], latencies.last().unwrap());
    note(&format!(
        "{what}: {} cancels, median {median:?}, longest {last:?}",
        latencies.len()
    ));
}

/// Returns numbers that differ in each run, from a seed that is printed.
fn random() -> Random {
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        | 1;
    note(&format!("seed {seed}"));
    Random::after(seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_in_any_phase_leaves_nothing_behind() {
    let Some(app) = App::shared() else { return };
    // The image is there already, so that every phase is short and each moment can be met.
    app.ready(None).await;
    let (mut random, mut latencies) = (random(), Vec::new());
    for phase in Phase::WORKING {
        for round in 0..4 {
            let longest = if phase == Phase::StartingContainer {
                200_000
            } else {
                15_000
            };
            let delay = Duration::from_micros(if round == 0 {
                0
            } else {
                random.number() % longest
            });
            latencies.extend(check(&app, None, phase, delay).await);
        }
    }
    assert!(
        latencies.len() >= 8,
        "only {} runs were met",
        latencies.len()
    );
    report("any phase", latencies);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_pull_leaves_nothing_behind_and_a_retry_becomes_ready() {
    let Some(engine) = own_engine() else { return };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    proxy.set_rate(4 << 20);
    let image = format!("{}/layers", proxy.address());
    let app = App::on(&engine);
    let (mut random, mut latencies) = (random(), Vec::new());
    for _ in 0..4 {
        let delay = Duration::from_millis(random.number() % 1_500);
        let took = check(&app, Some(&image), Phase::PullingImage, delay).await;
        latencies.push(took.expect("a slow pull is not over yet"));
    }
    report("a pull", latencies);
    proxy.unlimited();
    app.ready(Some(&image)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_session_becomes_ready_when_it_is_opened_again() {
    let Some(app) = App::shared() else { return };
    for phase in [Phase::CreatingVolume, Phase::StartingContainer] {
        cancel_at(&app, phase, Duration::ZERO);
        let (id, run) = app.create_and_wait(None).await;
        assert!(
            matches!(run.last().unwrap().event, SessionEvent::Cancelled(_)),
            "{run:#?}"
        );
        app.open(id, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_opening_of_a_session_keeps_its_files() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "echo kept > /workspace/file");
    app.sessions.stop(id).await.unwrap();
    cancel_at(&app, Phase::StartingContainer, Duration::ZERO);
    app.sessions.open(id).await.unwrap();
    let run = app.heard.run(id, 2).await;
    assert!(
        matches!(run.last().unwrap().event, SessionEvent::Cancelled(_)),
        "{run:#?}"
    );
    assert_eq!(app.inspect(id)["State"]["Running"], false);
    app.heard.on_event(|_| ());
    app.open(id, 3).await;
    assert_eq!(
        app.session(id)
            .await
            .read_file("/workspace/file")
            .await
            .unwrap()
            .content,
        "kept\n"
    );
}

/// Cancels while the engine is slow at one call: nothing is left once it has settled.
async fn check_slow(text: &'static str, phase: Phase, held: Held, delay: Duration) {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let engine = Arc::new(engine);
    let image = shared_registry().reference(TestImage::Tiny);
    engine.docker(&["pull", "--quiet", &image]).unwrap();
    let slow = SlowEngine::start(engine.socket(), text, held, delay);
    let app = App::through(&engine, &slow.address(), Start::default());
    let sent = cancel_at(&app, phase, Duration::from_millis(60));
    let (id, run) = app.create_and_wait(Some(&image)).await;
    check_run(&run);
    assert!(
        matches!(run.last().unwrap().event, SessionEvent::Cancelled(_)),
        "{run:#?}"
    );
    let took = crate::support::eventually("the answer", || sent.lock().unwrap().unwrap().1).await;
    assert!(took < LIMIT, "{took:?}");
    note(&format!(
        "{text} {held:?} for {delay:?}: cancelled in {took:?}"
    ));
    // At the end of the delay, the engine does what it was asked long ago.
    tokio::time::sleep((delay + Duration::from_millis(300)).saturating_sub(took)).await;
    app.until_nothing_is_left(id).await;
    // Nothing comes after all: not even the volume that an engine makes for a container by itself.
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.check_nothing_is_left(id);
    app.open(id, 2).await;
}

/// The engine hears late or answers late, by less or more than a cancel waits for.
async fn check_slow_both_ways(text: &'static str, phase: Phase) {
    let check = |held, delay| check_slow(text, phase, held, Duration::from_millis(delay));
    tokio::join!(check(Held::Request, 400), check(Held::Answer, 400));
    tokio::join!(check(Held::Request, 1_500), check(Held::Answer, 1_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_engine_creates_late_is_removed_after_the_cancel() {
    check_slow_both_ways("/volumes/create", Phase::CreatingVolume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_the_engine_creates_late_is_removed_after_the_cancel() {
    check_slow_both_ways("/containers/create", Phase::CreatingContainer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_the_engine_starts_late_is_removed_after_the_cancel() {
    check_slow_both_ways("/start HTTP", Phase::StartingContainer).await;
}
