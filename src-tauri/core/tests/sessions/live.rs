//! Files of a session that are watched: what is told of them, through what happens to the connection, and when nothing is.

use std::collections::BTreeSet;
use std::time::Duration;

use cove_core::error::ErrorCode;
use cove_core::session::SessionId;
use tokio::time::timeout;

use crate::support::{App, eventually, note};

const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn watch(app: &App, id: SessionId, paths: &[&str]) {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let watching = app.sessions.watch_dirs(id, paths).await.unwrap();
    assert!(!watching.limited);
}

/// Waits until all of these are told behind what was heard so far, and returns what else is.
pub(crate) async fn expect(app: &App, from: usize, paths: &[&str]) -> BTreeSet<String> {
    let mut told = app.heard.files.subscribe();
    let is_told = |told: &[_], path: &str| {
        let mut told = told.iter().skip(from);
        told.any(|told: &cove_core::event::FilesChanged| told.paths.iter().any(|it| it == path))
    };
    let all = told.wait_for(|told| paths.iter().all(|path| is_told(told, path)));
    let told = timeout(SOON, all).await.expect("it is told").unwrap();
    let others = told.iter().skip(from).flat_map(|told| told.paths.iter());
    let others = others.filter(|path| !paths.contains(&path.as_str()));
    others.cloned().collect()
}

pub(crate) fn heard(app: &App) -> usize {
    app.heard.files.borrow().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_is_told_when_it_changes_and_nothing_else() {
    let Some(app) = App::shared() else { return };
    let (id, other) = (app.ready(None).await, app.ready(None).await);
    app.sh(id, "mkdir -p /workspace/a/deep /workspace/b");
    watch(
        &app,
        id,
        &["/workspace/a", "/workspace/none", "/etc", "no path"],
    )
    .await;
    let from = heard(&app);
    app.sh(other, "mkdir /workspace/a && echo > /workspace/a/new");
    app.sh(
        id,
        "echo > /workspace/b/new; echo > /workspace/a/deep/new; echo > /workspace/a/new",
    );
    assert_eq!(expect(&app, from, &["/workspace/a"]).await, BTreeSet::new());
    let from = heard(&app);
    app.sh(id, "echo > /workspace/none");
    let others = expect(&app, from, &["/workspace/none"]).await;
    // The file from before was made and then written.
    assert!(
        others.iter().all(|path| path == "/workspace/a"),
        "{others:?}"
    );
    // In place of what was.
    watch(&app, id, &["/workspace/b"]).await;
    let from = heard(&app);
    app.sh(id, "rm -f /workspace/a/new; rm -f /workspace/b/new");
    assert_eq!(expect(&app, from, &["/workspace/b"]).await, BTreeSet::new());
    assert!(
        app.heard
            .files
            .borrow()
            .iter()
            .all(|told| told.session_id == id)
    );
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_counts_as_changed_after_a_break_and_is_watched_on() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    watch(&app, id, &["/workspace"]).await;
    for role in ["connect", "daemon"] {
        let from = heard(&app);
        assert_eq!(app.signal_agents(id, role, "-KILL"), 1);
        app.sh(id, "echo > /workspace/unseen");
        expect(&app, from, &["/workspace"]).await;
        // It is answered by what took the place of the broken one.
        watch(&app, id, &["/workspace"]).await;
        let from = heard(&app);
        app.sh(id, "echo > /workspace/seen");
        expect(&app, from, &["/workspace"]).await;
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_for_watching_when_nothing_is_watched() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // Each watch has a thread of its own.
    let count = "for p in /proc/[0-9]*; do \
                 if grep -q '^/.cove/agent.daemon' $p/cmdline 2> /dev/null; then ls $p/task; fi; done";
    let threads = || app.sh(id, count).lines().count();
    let without = threads();
    watch(&app, id, &["/workspace"]).await;
    watch(&app, id, &["/workspace", "/workspace/a"]).await;
    assert_eq!(threads(), without + 1);
    watch(&app, id, &[]).await;
    let is_over = || (threads() == without).then_some(());
    eventually("the end of the watch", is_over).await;
    watch(&app, id, &["/workspace"]).await;
    assert_eq!(threads(), without + 1);
    // As when the page is loaded anew.
    app.sessions.end_watches();
    eventually("the end of the watch", is_over).await;
    let from = heard(&app);
    app.sh(id, "echo > /workspace/new");
    watch(&app, id, &["/workspace"]).await;
    assert_eq!(heard(&app), from);
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_ready_is_not_watched() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    watch(&app, id, &["/workspace"]).await;
    app.sessions.stop(id).await.unwrap();
    let refused = app.sessions.watch_dirs(id, Vec::new()).await.unwrap_err();
    assert_eq!(refused.report().error, ErrorCode::SessionNotReady);
    app.sessions.open(id).await.unwrap();
    app.heard
        .until(id, |moments| {
            moments
                .iter()
                .filter(|moment| moment.event.is_terminal())
                .nth(1)
                .map(drop)
        })
        .await;
    watch(&app, id, &["/workspace"]).await;
    let from = heard(&app);
    app.sh(id, "echo > /workspace/new");
    expect(&app, from, &["/workspace"]).await;
    note("watched after a stop and a start");
    app.sessions.shutdown().await;
}
