//! Files that leave a session and come into another: whole, or not at all, whatever happens to them meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cove_core::error::{ErrorCode, ErrorReport};
use cove_core::event::{ExportOutcome, SessionEvent, Undone};
use cove_core::session::{SessionId, Source};
use cove_testbed::TestImage;
use serde_json::json;
use tar::EntryType;

use crate::support::{App, check_failed, check_ready, shared_registry};

/// Exports a session's files, and returns how that ended.
pub(crate) async fn export(
    app: &App,
    id: SessionId,
    path: &Path,
) -> (ExportOutcome, Option<ErrorReport>) {
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

/// Makes a chain of 3,000 directories, three times as deep as a path can say, with a file at its end.
const DIG: &str = "cd /workspace; P=$(printf 'd/%.0s' $(seq 1000)); mkdir -p a/$P b/$P c/$P; \
    echo deep > a/${P}f; mv a b/${P}a; mv b c/${P}b";

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_deeper_than_a_path_can_say_leaves_whole_or_says_where_it_does_not() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, DIG);
    let folder = tempfile::tempdir().unwrap();
    let names_of = async |id, name| {
        let path = folder.path().join(name);
        let (outcome, error) = export(&app, id, &path).await;
        assert_eq!(outcome, ExportOutcome::Done, "{error:?}");
        names_in(&path).unwrap()
    };
    let names = names_of(id, "original.tar").await;
    assert!(
        names.iter().any(|name| name.ends_with("/d/f")),
        "{}",
        names.len()
    );
    assert_eq!(names.len(), 3_005);

    let copy = app.sessions.duplicate(id, None).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    assert_eq!(names_of(copy, "copy.tar").await, names);

    // Where nothing runs, the engine packs, and it cannot see so deep.
    app.sessions.stop(id).await.unwrap();
    let path = folder.path().join("stopped.tar");
    let (outcome, error) = export(&app, id, &path).await;
    let error = error.unwrap();
    assert_eq!(
        (outcome, error.error),
        (ExportOutcome::Failed, ErrorCode::FilesIncomplete)
    );
    assert!(error.message.contains("deeper"), "{error:?}");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_holes_is_told_as_it_is_and_stays_so() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "set -e; cd /workspace; echo begin > huge; truncate -s 1099511627776 huge; echo end >> huge",
    );
    let size = (1_u64 << 40) + 4;
    let usage = app.sessions.usage(id).await.unwrap();
    assert_eq!((usage.size_bytes, usage.at_least), (Some(size), false));
    assert!(usage.stored_bytes.unwrap() < 1 << 20, "{usage:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.tar");
    let (outcome, error) = export(&app, id, &path).await;
    assert_eq!(outcome, ExportOutcome::Done, "{error:?}");
    assert!(path.metadata().unwrap().len() < 1 << 20);
    let look = "cd /workspace; stat -c %s huge; head -c 5 huge; tail -c 4 huge; [ $(stat -c %b huge) -lt 1000 ]";
    let before = app.sh(id, look);
    let copy = app.sessions.duplicate(id, None).await.unwrap();
    let source = Source::Archive { path };
    let request = json!({ "workspace_id": "tests" });
    let import = app.sessions.create_from(&request, Some(source)).unwrap();
    for other in [copy, import] {
        app.adopt(other);
        check_ready(&app.heard.run(other, 1).await);
        assert_eq!(app.sh(other, look), before);
    }
    // The engine can only read it to its end; that it is huge is known at once all the same.
    app.sessions.stop(id).await.unwrap();
    let usage = app.sessions.usage(id).await.unwrap();
    assert_eq!((usage.size_bytes, usage.at_least), (Some(size), true));
}

/// A member of an archive: name, kind, and the link's text or the content.
type Packed<'a> = (&'a str, EntryType, &'a str);

/// Packs what a hostile archive holds.
fn hostile(path: &Path, members: &[Packed<'_>]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, kind, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        let raw = &mut header.as_gnu_mut().unwrap().name;
        raw[..name.len()].copy_from_slice(name.as_bytes());
        let mut content = "";
        if *kind == EntryType::Regular {
            content = text;
        } else {
            let raw = &mut header.as_gnu_mut().unwrap().linkname;
            raw[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_leads_nothing_out_of_the_workspace() {
    let Some(app) = App::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.tar");
    let (file, link, hard) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
    let request = json!({ "workspace_id": "tests" });
    let import = || {
        let source = Source::Archive { path: path.clone() };
        let id = app.sessions.create_from(&request, Some(source)).unwrap();
        app.adopt(id);
        id
    };
    let cases: &[(&[Packed<'_>], &str)] = &[
        (&[("x", link, "/etc"), ("x/marker", file, "out")], "`x`"),
        (
            &[("y", link, "/.cove"), ("y/agent", file, "#!/bin/sh")],
            "`y`",
        ),
        (&[("../up", file, "up")], "`../up`"),
        (
            &[("a", file, "a"), ("hard", hard, "../etc/passwd")],
            "`../etc/passwd`",
        ),
        (
            &[("x", link, "/etc"), ("hard", hard, "x/passwd")],
            "`x/passwd`",
        ),
        (&[("disk", EntryType::Block, "")], "`disk`"),
    ];
    for (members, named) in cases {
        hostile(&path, members);
        let id = import();
        let run = app.heard.run(id, 1).await;
        let error = check_failed(&run, ErrorCode::ValidationError, None);
        let problem = error.details["fields"]["archive"].as_str().unwrap();
        assert!(problem.contains(named), "{named}: {problem}");
        app.check_nothing_is_left(id);
    }
    // What is odd and harmless comes in, as the session's user's.
    let odd: &[Packed<'_>] = &[
        (".", EntryType::Directory, ""),
        ("/abs", file, "abs"),
        ("run", file, "#!/bin/sh"),
        ("out", link, "/etc/passwd"),
        ("pipe", EntryType::Fifo, ""),
    ];
    hostile(&path, odd);
    let id = import();
    check_ready(&app.heard.run(id, 1).await);
    let look =
        "cd /workspace; stat -c '%n %a %U' abs run; readlink out; test -p pipe; stat -c %U .";
    let expected = "abs 755 dev\nrun 755 dev\n/etc/passwd\ndev";
    assert_eq!(app.sh(id, look), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_files_are_copied_ends_the_copying() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "head -c 1500000000 /dev/zero > /workspace/big");
    let copy = app.sessions.duplicate(id, None).await.unwrap();
    app.adopt(copy);
    app.heard
        .until(copy, |moments| {
            let told = moments.iter().rev().find_map(|moment| match &moment.event {
                SessionEvent::Progress(event) => Some(&event.message),
                _ => None,
            });
            let copies = told.is_some_and(|message| message.starts_with("Copying files: "));
            let begun = told.is_some_and(|message| !message.starts_with("Copying files: 0 "));
            (copies && begun).then_some(())
        })
        .await;
    let begin = Instant::now();
    app.sessions.cancel(copy).await.unwrap();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "the cancel took {took:?}");
    let run = app.heard.run(copy, 1).await;
    let SessionEvent::Cancelled(cancelled) = &run.last().unwrap().event else {
        panic!("{:#?}", run.last());
    };
    // A busy engine may take its time to remove what was written; then it is said what is still there.
    let is_told = |undone: &Undone| undone.failure.is_some();
    if !cancelled.undone.iter().any(is_told) {
        app.check_nothing_is_left(copy);
    }
    app.until_nothing_is_left(copy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_files_came_in_half_is_never_ready() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // As after a crash in the middle of the copying, with the journal lost.
    app.sh(id, "touch /.cove/unfilled");
    app.sessions.stop(id).await.unwrap();
    app.sessions.open(id).await.unwrap();
    let error = check_failed(
        &app.heard.run(id, 2).await,
        ErrorCode::AgentUnavailable,
        None,
    );
    assert!(
        error.message.contains("have not come in whole"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_an_image_declares_below_the_workspace_is_the_sessions() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::InnerVolume);
    let id = app.ready(Some(&image)).await;
    let write =
        "cd /workspace; echo outer > outer; cat node_modules/own; echo kept > node_modules/file";
    let (done, said) = app.exec(id, "1234", &["sh", "-c", write]);
    assert_eq!(
        (done, said.as_str()),
        (true, "of the image"),
        "its user may write"
    );

    // A rebuild keeps it, and so does deleting the container alone.
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 2).await);
    let look = "cd /workspace; cat outer node_modules/file node_modules/own";
    let expected = "outer\nkept\nof the image";
    assert_eq!(app.sh(id, look), expected);
    app.sessions.delete_container(id).await.unwrap();
    app.open(id, 3).await;
    assert_eq!(app.sh(id, look), expected);

    // It leaves with the rest, and is counted.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.tar");
    assert_eq!(export(&app, id, &path).await.0, ExportOutcome::Done);
    let names = names_in(&path).unwrap();
    assert!(
        names.iter().any(|name| name == "node_modules/file"),
        "{names:?}"
    );
    let usage = app.sessions.usage(id).await.unwrap();
    assert_eq!(usage.size_bytes, Some(6 + 5 + 12));
    let copy = app.sessions.duplicate(id, None).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    assert_eq!(app.sh(copy, look), expected);

    // And goes with it.
    for id in [copy, id] {
        let volumes = app.engine().resources_of(&id.to_string()).unwrap().volumes;
        assert_eq!(volumes.len(), 2, "{volumes:?}");
        app.sessions.delete(id).await.unwrap();
        app.check_nothing_is_left(id);
    }
}
