//! Many sessions at once: one pull for all, no event lost, and a list that stays quick.

use std::time::{Duration, Instant};

use cove_core::event::SessionEvent;
use cove_core::session::SessionId;
use cove_testbed::{Registry, RegistryOptions, TestImage};
use serde_json::json;

use crate::support::fake_engine::FakeEngine;
use crate::support::{App, Start, check_run, note, own_engine};

const MANY: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sessions_at_once_share_one_pull_and_all_become_ready() {
    let Some(engine) = own_engine() else { return };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let app = App::on(&engine);
    app.sessions.follow_engines();
    let image = registry.reference(TestImage::Layers);
    // What the first session costs is for all.
    app.ready(None).await;
    let before = resident_bytes();
    let begin = Instant::now();
    let ids: Vec<SessionId> = (0..MANY).map(|_| app.create(Some(&image))).collect();
    for id in &ids {
        let run = app.heard.run(*id, 1).await;
        check_run(&run);
        assert!(
            matches!(run.last().unwrap().event, SessionEvent::Ready(_)),
            "{:#?}",
            run.last()
        );
    }
    let took = begin.elapsed();
    let requests = registry.requests_for(TestImage::Layers);
    let blobs = requests
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains("/blobs/"));
    let mut paths: Vec<_> = blobs.map(|request| &request.path).collect();
    let fetched = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!(fetched, paths.len(), "a blob was fetched twice");
    let listed = app.sessions.list().await;
    assert_eq!(
        listed
            .iter()
            .filter(|session| ids.contains(&session.session_id))
            .count(),
        MANY
    );
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let each = after.saturating_sub(before) / MANY as u64;
        note(&format!(
            "{MANY} sessions ready in {took:?}, {each} bytes of memory each"
        ));
        assert!(each < 1 << 20, "{each} bytes a session");
    }
    let deleting = ids.iter().map(|id| app.sessions.delete(*id));
    for deleted in futures_util::future::join_all(deleting).await {
        deleted.unwrap();
    }
    for id in ids {
        app.check_nothing_is_left(id);
    }
    app.sessions.shutdown().await;
}

/// Returns the bytes of memory that this process holds, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[tokio::test]
async fn five_hundred_sessions_are_listed_at_once() {
    let engine = FakeEngine::new();
    let app = App::over(engine.clone(), Start::default());
    for index in 0..500 {
        let request = json!({ "workspace_id": format!("w{}", index % 20), "project_name": format!("p{index}") });
        let id = app.create_from(&request);
        app.heard.run(id, 1).await;
    }
    // Every next app has to read them all from the labels. The best of a few counts: other tests run beside.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let next = App::over(engine.clone(), Start::default());
        let begin = Instant::now();
        assert_eq!(next.sessions.list().await.len(), 500);
        best = best.min(begin.elapsed());
    }
    note(&format!("500 sessions listed in {best:?} at best"));
    assert!(best < Duration::from_millis(300), "{best:?}");
}
