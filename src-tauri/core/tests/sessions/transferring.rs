//! Files that are uploaded and downloaded: whole and as they were, or not at all, whatever happens meanwhile.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cove_core::error::ErrorCode;
use cove_core::event::{SessionEvent, TransferEvent, TransferOutcome};
use cove_core::session::{SessionId, SessionState};
use cove_core::sessions::{Destination, NameTaken};
use cove_testbed::{DiskSize, EngineProxy, SmallDisk, skip};

use crate::following;
use crate::support::{App, Start, eventually, note, own_engine};

/// Waits for the first event of a transfer for which this holds.
async fn until(
    app: &App,
    id: SessionId,
    transfer: &str,
    holds: impl Fn(&TransferEvent) -> bool,
) -> TransferEvent {
    let told = |moments: &[crate::support::Moment]| {
        moments.iter().find_map(|moment| match &moment.event {
            SessionEvent::Transfer(event) if event.transfer_id == transfer && holds(event) => {
                Some((**event).clone())
            }
            _ => None,
        })
    };
    app.heard.until(id, told).await
}

/// Waits for the end of a transfer.
async fn end(app: &App, id: SessionId, transfer: &str) -> TransferEvent {
    until(app, id, transfer, |event| event.outcome.is_some()).await
}

pub(crate) async fn upload(
    app: &App,
    id: SessionId,
    folder: &str,
    paths: &[PathBuf],
) -> TransferEvent {
    let folder = folder.to_owned();
    let transfer = app.session(id).await.upload(folder, paths);
    end(app, id, &transfer.unwrap()).await
}

pub(crate) async fn download(
    app: &App,
    id: SessionId,
    path: &str,
    to: Destination,
) -> TransferEvent {
    let paths = vec![path.to_owned()];
    let transfer = app.session(id).await.download(paths, to);
    end(app, id, &transfer.unwrap()).await
}

#[track_caller]
pub(crate) fn check_done(event: &TransferEvent) {
    assert_eq!(event.outcome, Some(TransferOutcome::Done), "{event:#?}");
}

/// Returns everything that can be told of a tree, one line for each name: kind, mode, time, size or target, content.
fn told(root: &Path) -> Vec<String> {
    let script = "find . -printf '%y %m %T@ %l %P\\n' | LC_ALL=C sort; \
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What of the workspace is there that no test put there.
fn halves(app: &App, id: SessionId) -> String {
    app.sh(id, "find /workspace -name '.cove-*.tmp'")
}

fn random_file(path: &Path, mebibytes: usize) {
    let status = Command::new("sh")
        .args(["-c", "head -c \"$2\" /dev/urandom > \"$1\"", "sh"])
        .arg(path)
        .arg((mebibytes << 20).to_string())
        .status();
    assert!(status.unwrap().success());
}

/// Makes a tree with all that a tree can have.
fn make_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("src/empty")).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("src/main.rs"), "fn main() {}\n").unwrap();
    fs::write(at("src/nothing"), "").unwrap();
    fs::write(at("closed/in"), "in a folder that may not be written to").unwrap();
    fs::write(at("run.sh"), "#!/bin/sh\n").unwrap();
    fs::hard_link(at("src/main.rs"), at("again.rs")).unwrap();
    symlink("/etc/passwd", at("out")).unwrap();
    symlink("src/main.rs", at("in")).unwrap();
    symlink("nowhere", at("broken")).unwrap();
    let odd: [&[u8]; 5] = [
        b"caf\xe9",
        b"new\nline",
        b"-rf",
        "\u{202e}txt.exe".as_bytes(),
        "\u{fdd0}".as_bytes(),
    ];
    for name in odd {
        fs::write(root.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(100 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 50 << 20).unwrap();
    random_file(&at("random"), 3);
    let modes = [
        ("run.sh", 0o755),
        ("src/main.rs", 0o640),
        ("closed", 0o555),
        ("src", 0o2775),
    ];
    for (name, mode) in modes {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let touched = Command::new("sh")
        .args([
            "-c",
            "find . -depth -exec touch -h -d '2001-02-03 04:05:06.789' {} +",
        ])
        .current_dir(root)
        .status();
    assert!(touched.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_as_it_was_and_belongs_to_the_session_s_user() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let tree = there.path().join("a tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let event = upload(&app, id, "/workspace", std::slice::from_ref(&tree)).await;
    check_done(&event);
    assert_eq!((event.name.as_str(), event.things), ("a tree", 1));
    assert_eq!(event.total_bytes, Some(event.bytes));
    let owners = app.sh(
        id,
        "stat -c %u:%g /workspace; find '/workspace/a tree' -exec stat -c %u:%g {} +",
    );
    let owners: std::collections::BTreeSet<_> = owners.lines().collect();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(halves(&app, id), "");

    let back = there.path().join("back");
    fs::create_dir(&back).unwrap();
    let to = Destination::Folder(back.clone());
    check_done(&download(&app, id, "/workspace/a tree", to).await);
    assert_eq!(names_in(&back), ["a tree"]);
    let back = back.join("a tree");
    // What set-group-id means is another thing on another machine.
    fs::set_permissions(tree.join("src"), fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(told(&back), told(&tree));
    let facts = |name: &str| fs::metadata(back.join(name)).unwrap();
    assert_eq!(facts("again.rs").ino(), facts("src/main.rs").ino());
    assert!(
        facts("sparse").blocks() < 1_000,
        "{} blocks",
        facts("sparse").blocks()
    );
    let stored = app.sh(id, "stat -c %b '/workspace/a tree/sparse'");
    assert!(stored.trim().parse::<u64>().unwrap() < 1_000, "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_are_asked_about_and_nothing_is_lost() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "cd /workspace; echo old > a.txt; mkdir d; echo old > d/kept; chown -R $(stat -c %u:%g .) .");
    let there = tempfile::tempdir().unwrap();
    let at = |name: &str| there.path().join(name);
    fs::write(at("a.txt"), "new\n").unwrap();
    fs::write(at("b.txt"), "new\n").unwrap();
    fs::create_dir(at("d")).unwrap();
    let chosen = [at("a.txt"), at("b.txt"), at("d")];
    let ask = async || {
        let event = upload(&app, id, "/workspace", &chosen).await;
        assert_eq!(event.outcome, Some(TransferOutcome::Asks), "{event:?}");
        event
    };
    let answer = async |event: &TransferEvent, choice| {
        let answered = app
            .session(id)
            .await
            .answer_transfer(&event.transfer_id, choice);
        let transfer = answered.unwrap().unwrap();
        check_done(&end(&app, id, &transfer).await);
    };
    let event = ask().await;
    assert_eq!(event.occupied, ["a.txt", "d"]);
    let files = || {
        app.sh(
            id,
            "cd /workspace; grep -r . a*.txt b*.txt d* | LC_ALL=C sort",
        )
    };
    assert_eq!(app.sh(id, "ls /workspace"), "a.txt\nd");
    answer(&event, NameTaken::Skip).await;
    assert_eq!(files(), "a.txt:old\nb.txt:new\nd/kept:old");
    // What was answered is over.
    let again = app
        .session(id)
        .await
        .answer_transfer(&event.transfer_id, NameTaken::Skip);
    assert_eq!(again.unwrap_err().code(), ErrorCode::ValidationError);

    app.sh(id, "rm /workspace/b.txt");
    answer(&ask().await, NameTaken::KeepBoth).await;
    assert_eq!(files(), "a copy.txt:new\na.txt:old\nb.txt:new\nd/kept:old");
    assert!(
        app.sh(id, "ls -d /workspace/d*")
            .contains("/workspace/d copy")
    );

    app.sh(
        id,
        "rm '/workspace/a copy.txt' /workspace/b.txt; rmdir '/workspace/d copy'",
    );
    answer(&ask().await, NameTaken::Replace).await;
    assert_eq!(files(), "a.txt:new\nb.txt:new");
    let trash = app.sh(id, "grep -rh old /workspace/.cove-trash");
    assert_eq!(trash, "old\nold");
    assert_eq!(halves(&app, id), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_leaves_nothing_on_either_side() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let (big, back) = (there.path().join("big"), there.path().join("back"));
    random_file(&big, 400);
    fs::create_dir(&back).unwrap();
    let cancel = async |transfer: String| {
        until(&app, id, &transfer, |event| event.bytes > 1 << 20).await;
        app.sessions.cancel_transfer(id, &transfer).await.unwrap();
        let event = end(&app, id, &transfer).await;
        assert_eq!(event.outcome, Some(TransferOutcome::Cancelled), "{event:?}");
    };
    let into = "/workspace".to_owned();
    cancel(
        app.session(id)
            .await
            .upload(into, std::slice::from_ref(&big))
            .unwrap(),
    )
    .await;
    eventually("the end of half an upload", || {
        app.sh(id, "ls -A /workspace").is_empty().then_some(())
    })
    .await;
    check_done(&upload(&app, id, "/workspace", &[big]).await);
    let to = Destination::Folder(back.clone());
    let paths = vec!["/workspace/big".to_owned()];
    cancel(app.session(id).await.download(paths, to).unwrap()).await;
    assert_eq!(names_in(&back), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_the_connection_broke_and_a_folder_and_an_upload_leave_nothing() {
    let Some(engine) = own_engine() else { return };
    let proxy = EngineProxy::start(engine.socket()).unwrap();
    let app = App::through(&engine, &proxy.address(), Start::default());
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let (big, back) = (there.path().join("big"), there.path().join("back"));
    random_file(&big, 600);
    fs::create_dir(&back).unwrap();
    check_done(&upload(&app, id, "/workspace", std::slice::from_ref(&big)).await);
    let cut = || assert!(proxy.cut_only("/exec") > 0);

    let paths = vec!["/workspace/big".to_owned()];
    let to = || Destination::Folder(back.clone());
    let transfer = app.session(id).await.download(paths.clone(), to()).unwrap();
    until(&app, id, &transfer, |event| event.bytes > 64 << 20).await;
    cut();
    let event = end(&app, id, &transfer).await;
    check_done(&event);
    assert_eq!(event.bytes, 600 << 20, "something came twice");
    assert_eq!(told(&back)[1..], told_of(&big, &back.join("big")));
    fs::remove_file(back.join("big")).unwrap();

    // Another file under the same name is not gone on with.
    let transfer = app.session(id).await.download(paths, to()).unwrap();
    until(&app, id, &transfer, |event| event.bytes > 64 << 20).await;
    app.sh(id, "cd /workspace; cp -p big other; mv other big");
    cut();
    let event = end(&app, id, &transfer).await;
    assert_eq!(event.outcome, Some(TransferOutcome::Failed), "{event:?}");
    assert!(
        event.error.as_ref().unwrap().message.contains("changed"),
        "{event:?}"
    );
    assert_eq!(names_in(&back), Vec::<String>::new());
    // It may begin again, once.
    let again = app.session(id).await.retry_transfer(&transfer).unwrap();
    check_done(&end(&app, id, &again).await);
    app.session(id).await.retry_transfer(&transfer).unwrap_err();

    app.sh(id, "mkdir /workspace/d; mv /workspace/big /workspace/d");
    for (path, names) in [("/workspace/d", vec!["big"])] {
        let transfer = app
            .session(id)
            .await
            .download(vec![path.to_owned()], to())
            .unwrap();
        until(&app, id, &transfer, |event| event.bytes > 64 << 20).await;
        cut();
        let event = end(&app, id, &transfer).await;
        assert_eq!(event.error.unwrap().error, ErrorCode::AgentUnavailable);
        assert_eq!(names_in(&back), names);
    }
    let into = "/workspace".to_owned();
    let transfer = app
        .session(id)
        .await
        .upload(into, std::slice::from_ref(&big))
        .unwrap();
    until(&app, id, &transfer, |event| event.bytes > 64 << 20).await;
    cut();
    let event = end(&app, id, &transfer).await;
    assert_eq!(event.error.unwrap().error, ErrorCode::AgentUnavailable);
    eventually("the end of half an upload", || {
        (app.sh(id, "ls -A /workspace") == "d").then_some(())
    })
    .await;
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_container_left_in_half_goes_at_the_next_start() {
    let Some(app) = App::shared() else { return };
    following::follow(&app).await;
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let big = there.path().join("big");
    random_file(&big, 400);
    app.sh(
        id,
        "cd /workspace; mkdir -p d/deep; chown -R $(stat -c %u:%g .) d",
    );
    let into = "/workspace/d/deep".to_owned();
    let transfer = app.session(id).await.upload(into, &[big]).unwrap();
    until(&app, id, &transfer, |event| event.bytes > 4 << 20).await;
    app.engine().docker(&["kill", &id.resource_name()]).unwrap();
    let event = end(&app, id, &transfer).await;
    assert_eq!(event.outcome, Some(TransferOutcome::Failed), "{event:?}");
    following::until_shown(&app, id, following::is(SessionState::Stopped, true)).await;
    app.sessions.open(id).await.unwrap();
    let run = app.heard.run(id, 2).await;
    assert!(matches!(run.last().unwrap().event, SessionEvent::Ready(_)));
    assert_ne!(halves(&app, id), "", "it ended before the container");
    let listed = app.session(id).await.list_dir("/workspace/d/deep").await;
    assert_eq!(listed.unwrap().entries, []);
    eventually("the end of half an upload", || {
        halves(&app, id).is_empty().then_some(())
    })
    .await;
    assert_eq!(
        app.sh(id, "find /workspace"),
        "/workspace\n/workspace/d\n/workspace/d/deep"
    );
}

/// Returns what is told of a file under another name.
fn told_of(file: &Path, name: &Path) -> Vec<String> {
    let folder = tempfile::tempdir_in(file.parent().unwrap()).unwrap();
    fs::hard_link(file, folder.path().join(name.file_name().unwrap())).unwrap();
    told(folder.path())[1..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_has_no_room_is_named_and_nothing_is_kept() {
    if let Some(reason) = SmallDisk::cannot_mount() {
        skip(reason);
        return;
    }
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let back = there.path().join("back");
    fs::create_dir(&back).unwrap();
    app.sh(
        id,
        "cd /workspace; mkdir d; echo 1 > d/a; echo 2 > d/b; chmod 0 d/b",
    );
    let event = download(&app, id, "/workspace/d", Destination::Folder(back.clone())).await;
    let error = event.error.unwrap();
    assert!(error.message.contains("`d/b`"), "{error:?}");
    assert_eq!(names_in(&back), Vec::<String>::new());

    app.sh(
        id,
        "rm -rf /workspace/d; head -c 30000000 /dev/zero > /workspace/big",
    );
    let disk = SmallDisk::new(DiskSize {
        megabytes: 8,
        inodes: None,
    })
    .unwrap();
    let to = Destination::Folder(disk.path().to_owned());
    let event = download(&app, id, "/workspace/big", to).await;
    let error = event.error.unwrap();
    assert_eq!(error.error, ErrorCode::ExportFailed, "{error:?}");
    assert!(
        names_in(disk.path())
            .iter()
            .all(|name| name == "lost+found")
    );

    // One that is gone is no success.
    let event = download(
        &app,
        id,
        "/workspace/none",
        Destination::Folder(back.clone()),
    )
    .await;
    assert_eq!(event.error.unwrap().error, ErrorCode::FileNotFound);
    assert_eq!(names_in(&back), Vec::<String>::new());
    app.sh(id, "rm /workspace/big");
    let gone = there.path().join("gone");
    let event = upload(&app, id, "/workspace", &[gone]).await;
    assert_eq!(event.error.unwrap().error, ErrorCode::TransferFailed);
    let event = upload(&app, id, "/workspace/none", &[back]).await;
    assert_eq!(event.error.unwrap().error, ErrorCode::FileNotFound);
    assert_eq!(app.sh(id, "ls -A /workspace"), "");
}

/// Returns how many kilobytes of memory the process has, at most so far.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1);
    kilobytes.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_gigabyte_takes_little_memory_and_keeps_no_keystroke_waiting() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let (big, back) = (there.path().join("big"), there.path().join("back"));
    random_file(&big, 500);
    fs::create_dir(&back).unwrap();
    let shell = crate::terminals::Shell::open(&app, id).await;
    shell.type_line("echo a$((1+1))b").await;
    shell.until_shown("a2b").await;
    let before = most_memory();
    let begin = Instant::now();
    check_done(&upload(&app, id, "/workspace", std::slice::from_ref(&big)).await);
    let up = begin.elapsed();
    let begin = Instant::now();
    let paths = vec!["/workspace/big".to_owned()];
    let to = Destination::Folder(back.clone());
    let transfer = app.session(id).await.download(paths, to).unwrap();
    let mut slowest = Duration::ZERO;
    for round in 2.. {
        let begin = Instant::now();
        shell.type_line(&format!("echo a$(({round}+1))b")).await;
        shell.until_shown(&format!("a{}b", round + 1)).await;
        slowest = slowest.max(begin.elapsed());
        let is_over = until(&app, id, &transfer, |event| event.outcome.is_some());
        if tokio::time::timeout(Duration::ZERO, is_over).await.is_ok() {
            assert!(round > 3, "it was over before anything was typed");
            break;
        }
    }
    check_done(&end(&app, id, &transfer).await);
    let down = begin.elapsed();
    let more = most_memory() - before;
    assert!(more < 32 << 10, "{more} kB more");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let agent = app.sh(
        id,
        "grep VmHWM $(grep -l daemon /proc/[0-9]*/cmdline | sed 's/cmdline/status/') 2> /dev/null || :",
    );
    let kilobytes = agent
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok())
        .max();
    assert!(kilobytes.unwrap() < 24 << 10, "{agent}");
    note(&format!(
        "500 MiB up in {up:?}, down in {down:?}: {more} kB more memory, the agent's {agent}, the slowest line {slowest:?}"
    ));
}

/// Makes a folder of so many small files.
fn many_files(root: &Path, count: usize) {
    for folder in 0..count / 200 {
        let folder = root.join(format!("folder {folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..200 {
            fs::write(folder.join(format!("{file}.txt")), vec![b'x'; file * 10]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_files_come_back_as_they_were() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let there = tempfile::tempdir().unwrap();
    let (many, back) = (there.path().join("many"), there.path().join("back"));
    many_files(&many, 20_000);
    fs::create_dir(&back).unwrap();
    let begin = Instant::now();
    let event = upload(&app, id, "/workspace", std::slice::from_ref(&many)).await;
    check_done(&event);
    assert_eq!(event.files, 20_000);
    let up = begin.elapsed();
    let begin = Instant::now();
    let to = Destination::Folder(back.clone());
    check_done(&download(&app, id, "/workspace/many", to).await);
    let down = begin.elapsed();
    assert_eq!(told(&back.join("many")), told(&many));
    app.sh(id, "rm -r /workspace/many");

    let docker = |from: &str, to: &str| {
        let begin = Instant::now();
        app.engine().docker(&["cp", from, to]).unwrap();
        begin.elapsed()
    };
    let (outside, inside) = (
        many.display().to_string(),
        format!("{}:/workspace/", id.resource_name()),
    );
    let up_by_engine = docker(&outside, &inside);
    let by_engine = there.path().join("by engine").display().to_string();
    let down_by_engine = docker(&format!("{inside}many"), &by_engine);
    note(&format!(
        "20,000 files: up in {up:?}, down in {down:?}; by `docker cp` in {up_by_engine:?} and {down_by_engine:?}"
    ));
}
