//! From a request to ready: what is told on the way, and that it is true.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cove_core::estimate::{ImageSource, RunKind};
use cove_core::event::Phase;
use cove_testbed::{Proxy, Registry, RegistryOptions, TestImage};

use crate::support::{
    App, Moment, Start, check_ready, note, own_engine, progress_of, seq_of, shared_registry,
};

/// The phases that a run went through, each as often as it was entered.
fn phases(run: &[Moment]) -> Vec<Phase> {
    let told = run.iter().filter_map(|moment| progress_of(&moment.event));
    let mut phases: Vec<_> = told.map(|(phase, _)| phase).collect();
    phases.dedup();
    phases
}

const ALL: [Phase; 6] = [
    Phase::Starting,
    Phase::PullingImage,
    Phase::CreatingVolume,
    Phase::CreatingContainer,
    Phase::StartingContainer,
    Phase::Ready,
];

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_image_becomes_ready_through_all_phases_in_order() {
    let Some(app) = App::shared() else { return };
    for count in 0..5 {
        let begin = Instant::now();
        let id = app.create(None);
        let returned = begin.elapsed();
        let run = app.heard.run(id, 1).await;
        check_ready(&run);
        assert_eq!(phases(&run), ALL);
        assert!(returned < Duration::from_millis(20), "{returned:?}");
        assert!(run[0].at < Duration::from_millis(100), "{:?}", run[0].at);
        note(&format!(
            "{count}: first event {:?}, ready {:?}",
            run[0].at,
            run.last().unwrap().at
        ));

        let status = app.sessions.status(id).await.unwrap();
        assert!(status.ready);
        assert_eq!(status.seq, seq_of(&run.last().unwrap().event));
        assert!((status.progress.percent - 100.0).abs() < f64::EPSILON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_pull_moves_with_its_bytes_and_the_next_session_needs_no_registry() {
    let Some(engine) = own_engine() else { return };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    proxy.set_rate(12 << 20);
    let image = format!("{}/layers:latest", proxy.address());
    let app = App::on(&engine);

    let (_, cold) = app.create_and_wait(Some(&image)).await;
    check_ready(&cold);
    assert_eq!(phases(&cold), ALL);
    let mut pulling = cold
        .iter()
        .filter_map(|moment| match progress_of(&moment.event) {
            Some((Phase::PullingImage, progress)) => Some(progress),
            _ => None,
        });
    let percents: BTreeSet<_> = pulling
        .clone()
        .map(|now| format!("{:.2}", now.percent))
        .collect();
    assert!(percents.len() >= 10, "{percents:?}");
    let last = pulling.next_back().unwrap().pull.unwrap();
    assert_eq!(
        (last.layers_total, last.total_is_exact),
        (9, true),
        "{last:?}"
    );

    let requests = registry.requests().len();
    proxy.refuse();
    let (_, cached) = app.create_and_wait(Some(&image)).await;
    check_ready(&cached);
    assert_eq!(phases(&cached), ALL);
    assert_eq!(registry.requests().len(), requests, "a registry was asked");

    // What was learned outlives the app: an estimate is there as soon as it can be.
    let kept = app.kept.histories.lock().unwrap().last().cloned().unwrap();
    for source in [ImageSource::Registry, ImageSource::Engine] {
        let kind = RunKind {
            engine: engine.host().to_owned(),
            registry: proxy.address(),
            image: image.clone(),
            source,
        };
        let usual = kept.usual(&kind);
        assert!(usual.is_learned(Phase::StartingContainer), "{source:?}");
        let sizes = usual.pull.map(|pull| pull.sizes().count());
        let pulled = source == ImageSource::Registry;
        assert_eq!(sizes, pulled.then_some(9));
    }
    let start = Start {
        history: kept,
        ..Start::default()
    };
    let later = App::with(&engine, start);
    let (_, run) = later.create_and_wait(Some(&image)).await;
    check_ready(&run);
    let eta = run
        .iter()
        .find_map(|moment| match progress_of(&moment.event) {
            Some((phase, progress)) if phase < Phase::Ready => progress.eta_ms,
            _ => None,
        });
    let eta = eta.expect("history gives an estimate");
    assert!((1..10_000).contains(&eta), "{eta} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_linux_image_becomes_ready() {
    let Some(app) = App::shared() else { return };
    let registry = shared_registry();
    let images = [
        TestImage::Exits,
        TestImage::BadEntrypoint,
        TestImage::FailingEntrypoint,
        TestImage::NonRoot,
        TestImage::NamedUser,
        TestImage::StaticOnly,
    ];
    let ids = images.map(|image| app.create(Some(&registry.reference(image))));
    for (image, id) in images.into_iter().zip(ids) {
        let run = app.heard.run(id, 1).await;
        check_ready(&run);
        let listed = app.session(id).await.list_dir("/workspace").await;
        assert!(listed.unwrap().entries.is_empty(), "{image:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_image_are_created_side_by_side() {
    let Some(app) = App::shared() else { return };
    // An address that no other test uses is an image that no other test has pulled.
    let proxy = Proxy::start(shared_registry().address()).unwrap();
    let image = format!("{}/tiny", proxy.address());
    let ids: Vec<_> = (0..4).map(|_| app.create(Some(&image))).collect();
    for id in &ids {
        check_ready(&app.heard.run(*id, 1).await);
        let name = id.resource_name();
        let found = app.engine().resources_of(&id.to_string()).unwrap();
        assert_eq!(
            (found.containers, found.volumes),
            (vec![name.clone()], vec![name])
        );
    }
}
