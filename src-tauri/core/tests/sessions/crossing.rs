//! Files that leave a session and come into another: whole, or not at all, whatever happens to them meanwhile.

use std::path::Path;
use std::process::Command;

use cove_core::error::{ErrorCode, ErrorReport};
use cove_core::event::{ExportOutcome, SessionEvent};
use cove_core::session::SessionId;

use crate::support::App;

/// Exports a session's files, and returns how that ended.
async fn export(app: &App, id: SessionId, path: &Path) -> (ExportOutcome, Option<ErrorReport>) {
    let ends = |moments: &[crate::support::Moment]| {
        let ends = moments.iter().filter_map(|moment| match &moment.event {
            SessionEvent::Export(event) => Some((event.outcome?, event.error.clone())),
            _ => None,
        });
        ends.collect::<Vec<_>>()
    };
    let before = ends(&app.heard.of(id)).len();
    app.sessions.export(id, path.to_owned()).await.unwrap();
    app.heard
        .until(id, |moments| ends(moments).get(before).cloned())
        .await
}

/// Lists an archive with the system's tar; `None` when that finds fault with it.
fn names_in(archive: &Path) -> Option<Vec<String>> {
    let output = Command::new("tar")
        .arg("-tf")
        .arg(archive)
        .output()
        .unwrap();
    let names = String::from_utf8_lossy(&output.stdout);
    let names = names.lines().map(str::to_owned).collect();
    output.status.success().then_some(names)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_while_a_file_shrinks_is_whole_or_says_what_is_not() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace; mkdir b; for i in $(seq 500); do echo $i > b/$i; done",
    );
    // A log that is written, and begun anew, over and over; what comes behind it is touched by nobody.
    app.sh(
        id,
        "cd /workspace; (while :; do head -c 60000000 /dev/zero > a-log; : > a-log; done) > /dev/null 2>&1 &",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.tar");
    for _ in 0..6 {
        let (outcome, error) = export(&app, id, &path).await;
        if outcome == ExportOutcome::Done {
            let names = names_in(&path).expect("what is called whole can be read");
            let untouched = names.iter().filter(|name| name.starts_with("b/"));
            assert_eq!(untouched.filter(|name| !name.ends_with('/')).count(), 500);
            std::fs::remove_file(&path).unwrap();
        } else {
            let error = error.unwrap();
            assert_eq!(error.error, ErrorCode::FilesIncomplete, "{error:?}");
            assert!(error.message.contains("a-log"), "{error:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
