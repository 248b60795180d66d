//! What is done to whole entries: new, moved, copied, deleted, restored.

use std::fs::FileTimes;
use std::time::{Duration, SystemTime};

use super::*;
use crate::path::encode;
use crate::protocol::NewEntry;

/// Names of any bytes, with what is awkward in a shell, a JSON text, a page or a path of the protocol.
const NAMES: [&[u8]; 12] = [
    b"plain",
    b"two  words",
    b"new\nline",
    b"-rf",
    b"back\\slash",
    b"%2e%2e",
    b"__proto__",
    b"caf\xe9",
    b"\xff\xfe",
    "\u{FDD0}2f".as_bytes(),
    "a\u{202e}b".as_bytes(),
    b"...",
];

fn path_of(name: &[u8]) -> String {
    format!("/workspace/{}", encode(name))
}

impl Fixture {
    fn create(&self, path: &str, entry: NewEntry) -> Result<(), Failure> {
        let created = self.workspace.create(path, entry);
        created.map_err(|error| error.failure)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        let renamed = self.workspace.rename(from, to);
        renamed.map_err(|error| error.failure)
    }

    fn copy(&self, from: &str, to: &str) -> Result<String, Failure> {
        let copied = self.workspace.copy(from, to, false);
        copied.map_err(|error| error.failure)
    }

    fn delete(&self, paths: &[&str]) -> Result<String, Failure> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let deleted = self.workspace.delete(&paths);
        deleted.map_err(|error| error.failure)
    }

    fn restore(&self, id: &str) -> Result<(), Failure> {
        let restored = self.workspace.restore(id);
        restored.map_err(|error| error.failure)
    }

    fn on_disk(&self, name: &[u8]) -> PathBuf {
        self.disk.join(OsStr::from_bytes(name))
    }

    /// What a folder on the disk holds, also what a list does not show.
    fn really_in(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.disk.join(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn names_of_any_bytes_go_through_every_operation() {
    let fixture = fixture();
    fs::create_dir(fixture.disk.join("d")).unwrap();
    for name in NAMES {
        let path = path_of(name);
        let moved = format!("/workspace/d/{}", encode(name));
        fixture.create(&path, NewEntry::File).unwrap();
        fs::write(fixture.on_disk(name), name).unwrap();
        fixture.rename(&path, &moved).unwrap();
        assert!(!fixture.on_disk(name).exists(), "{name:?}");
        assert_eq!(fixture.copy(&moved, &path).unwrap(), path);
        let trash = fixture.delete(&[&moved]).unwrap();
        assert_eq!(fixture.read(&moved), Err(Failure::NotFound));
        fixture.restore(&trash).unwrap();
        assert_eq!(fixture.read(&moved).unwrap(), name);
        assert_eq!(fs::read(fixture.on_disk(name)).unwrap(), name);
    }
    assert_eq!(fixture.names("/workspace/d").len(), NAMES.len());
    assert_eq!(fixture.names("/workspace").len(), NAMES.len() + 1);
}

#[test]
fn new_entries_are_empty_and_take_nobody_s_place() {
    let fixture = fixture();
    fs::write(fixture.disk.join("file"), "kept").unwrap();
    fs::create_dir(fixture.disk.join("dir")).unwrap();
    symlink("nowhere", fixture.disk.join("broken")).unwrap();
    symlink(fixture.outside.join("new"), fixture.disk.join("out")).unwrap();
    for entry in [NewEntry::File, NewEntry::Dir] {
        for name in ["file", "dir", "broken", "out"] {
            let path = format!("/workspace/{name}");
            assert_eq!(fixture.create(&path, entry), Err(Failure::Exists), "{path}");
        }
        assert_eq!(
            fixture.create("/workspace", entry),
            Err(Failure::Invalid),
            "the root"
        );
        assert_eq!(
            fixture.create("/workspace/missing/a", entry),
            Err(Failure::NotADirectory)
        );
        assert_eq!(
            fixture.create("/workspace/file/a", entry),
            Err(Failure::NotADirectory)
        );
    }
    assert_eq!(fixture.read("/workspace/file").unwrap(), b"kept");
    assert!(!fixture.outside.join("new").exists());
    let long = format!("/workspace/{}", "x".repeat(256));
    assert_eq!(fixture.create(&long, NewEntry::File), Err(Failure::Invalid));
    fixture.create("/workspace/dir/a", NewEntry::File).unwrap();
    fixture.create("/workspace/dir/b", NewEntry::Dir).unwrap();
    assert_eq!(fixture.read("/workspace/dir/a").unwrap(), b"");
    assert_eq!(fixture.names("/workspace/dir"), ["b", "a"]);
}

#[test]
fn a_move_takes_nobody_s_place_and_moves_a_link_itself() {
    let fixture = fixture();
    fs::write(fixture.disk.join("a"), "a").unwrap();
    fs::write(fixture.disk.join("b"), "b").unwrap();
    fs::create_dir_all(fixture.disk.join("dir/inner")).unwrap();
    fs::create_dir(fixture.disk.join("empty")).unwrap();
    symlink(&fixture.outside, fixture.disk.join("out")).unwrap();
    for to in ["b", "dir", "empty", "out", "a"] {
        let moved = fixture.rename("/workspace/a", &format!("/workspace/{to}"));
        assert_eq!(moved, Err(Failure::Exists), "{to}");
    }
    assert_eq!(
        fixture.rename("/workspace/dir", "/workspace/empty"),
        Err(Failure::Exists)
    );
    assert_eq!(
        fixture.rename("/workspace/none", "/workspace/new"),
        Err(Failure::NotFound)
    );
    assert_eq!(
        fixture.rename("/workspace/a", "/workspace/none/a"),
        Err(Failure::NotADirectory)
    );
    fixture
        .rename("/workspace/out", "/workspace/dir/out")
        .unwrap();
    let target = fs::read_link(fixture.disk.join("dir/out")).unwrap();
    assert_eq!(target, fixture.outside);
    fixture.rename("/workspace/a", "/workspace/A").unwrap();
    fixture
        .rename("/workspace/dir", "/workspace/empty/dir")
        .unwrap();
    assert!(fixture.disk.join("empty/dir/inner").is_dir());
    fixture.check_names(&["empty", "A", "b"]);
}

#[test]
fn a_folder_is_neither_moved_nor_copied_into_itself_whatever_way_leads_there() {
    let fixture = fixture();
    fs::create_dir_all(fixture.disk.join("a/b/c")).unwrap();
    symlink("a/b", fixture.disk.join("way")).unwrap();
    symlink("..", fixture.disk.join("a/b/up")).unwrap();
    for to in ["a/a", "a/b/a", "a/b/c/a", "way/a", "way/c/a", "a/b/up/x"] {
        let to = format!("/workspace/{to}");
        assert_eq!(
            fixture.rename("/workspace/a", &to),
            Err(Failure::Invalid),
            "{to}"
        );
        assert_eq!(
            fixture.copy("/workspace/a", &to),
            Err(Failure::Invalid),
            "{to}"
        );
    }
    let error = fixture
        .workspace
        .rename("/workspace/a", "/workspace/way/a")
        .unwrap_err();
    assert_eq!(error.message, "`/workspace/a` cannot be moved into itself");
    assert_eq!(fixture.really_in("a/b"), ["c", "up"]);
    // A link to a folder is no folder.
    fixture
        .rename("/workspace/way", "/workspace/a/b/way")
        .unwrap();
}

#[test]
fn nothing_is_done_outside_of_the_workspace() {
    let fixture = fixture();
    fs::write(fixture.disk.join("a"), "a").unwrap();
    symlink(&fixture.outside, fixture.disk.join("out")).unwrap();
    symlink("..", fixture.disk.join("up")).unwrap();
    for path in [
        "/workspace/out/secret",
        "/workspace/up/outside/secret",
        "/workspace/../outside/secret",
        "/etc/passwd",
        "secret",
        "",
    ] {
        let outside = Err(Failure::Outside);
        assert_eq!(fixture.create(path, NewEntry::File), outside, "{path}");
        assert_eq!(fixture.rename("/workspace/a", path), outside, "{path}");
        assert_eq!(fixture.rename(path, "/workspace/b"), outside, "{path}");
        let copied = fixture.copy("/workspace/a", path);
        assert_eq!(copied, Err(Failure::Outside), "{path}");
        let copied = fixture.copy(path, "/workspace/b");
        assert_eq!(copied, Err(Failure::Outside), "{path}");
        let deleted = fixture.delete(&["/workspace/a", path]);
        assert_eq!(deleted, Err(Failure::Outside), "{path}");
    }
    // The link itself may go.
    let trash = fixture.delete(&["/workspace/out"]).unwrap();
    fixture.check_names(&["a", "up"]);
    fixture.restore(&trash).unwrap();
    assert_eq!(fs::read(fixture.outside.join("secret")).unwrap(), b"secret");
}

#[test]
fn a_copy_keeps_content_modes_times_links_and_holes() {
    let fixture = fixture();
    let disk = &fixture.disk;
    fs::create_dir_all(disk.join("from/deep/er")).unwrap();
    fs::write(disk.join("from/deep/er/file"), "x".repeat(3 << 20)).unwrap();
    fs::write(disk.join("from/script"), "#!/bin/sh\n").unwrap();
    set_mode(&disk.join("from/script"), 0o4751);
    fs::write(disk.join("from/locked"), "mine").unwrap();
    set_mode(&disk.join("from/locked"), 0o400);
    symlink("../nowhere", disk.join("from/link")).unwrap();
    symlink(&fixture.outside, disk.join("from/out")).unwrap();
    mkfifoat(CWD, disk.join("from/pipe"), Mode::from_raw_mode(0o640)).unwrap();
    let sparse = File::create(disk.join("from/sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"end", (1 << 40) - 3).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890);
    for name in ["from/script", "from/deep", "from"] {
        let times = FileTimes::new().set_modified(then);
        File::open(disk.join(name))
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    set_mode(&disk.join("from/deep"), 0o555);

    let copy = fixture.copy("/workspace/from", "/workspace/to").unwrap();
    assert_eq!(copy, "/workspace/to");
    assert_eq!(fixture.really_in("to"), fixture.really_in("from"));
    let file = fs::read(disk.join("to/deep/er/file")).unwrap();
    assert_eq!(file.len(), 3 << 20);
    assert_eq!(
        mode(&disk.join("to/script")),
        0o751,
        "nothing is set-user-id"
    );
    assert_eq!(mode(&disk.join("to/locked")), 0o400);
    assert_eq!(mode(&disk.join("to/deep")), 0o555);
    for name in ["to/script", "to/deep", "to"] {
        let modified = fs::metadata(disk.join(name)).unwrap().modified().unwrap();
        assert_eq!(modified, then, "{name}");
    }
    let link = fs::read_link(disk.join("to/link")).unwrap();
    assert_eq!(link.to_str(), Some("../nowhere"));
    let out = fs::read_link(disk.join("to/out")).unwrap();
    assert_eq!(
        out, fixture.outside,
        "a link that leads out is copied, and not what is there"
    );
    let sparse = fs::metadata(disk.join("to/sparse")).unwrap();
    assert_eq!(sparse.len(), 1 << 40);
    assert!(sparse.blocks() < 1 << 10, "{} blocks", sparse.blocks());
    assert_eq!(fs::read(fixture.outside.join("secret")).unwrap(), b"secret");
    set_mode(&disk.join("from/deep"), 0o755);
    set_mode(&disk.join("to/deep"), 0o755);
}

#[test]
fn a_copy_takes_nobody_s_place_and_finds_a_name_where_it_may() {
    let fixture = fixture();
    fs::write(fixture.disk.join("a.txt"), "a").unwrap();
    fs::write(fixture.disk.join("b.txt"), "b").unwrap();
    assert_eq!(
        fixture.copy("/workspace/a.txt", "/workspace/b.txt"),
        Err(Failure::Exists)
    );
    assert_eq!(
        fixture.copy("/workspace/none", "/workspace/c"),
        Err(Failure::NotFound)
    );
    let again = || {
        let path = "/workspace/a.txt";
        fixture.workspace.copy(path, path, true).unwrap()
    };
    assert_eq!(again(), "/workspace/a copy.txt");
    assert_eq!(again(), "/workspace/a copy 2.txt");
    assert_eq!(fixture.read("/workspace/b.txt").unwrap(), b"b");
    fixture.check_names(&["a copy 2.txt", "a copy.txt", "a.txt", "b.txt"]);
    assert_eq!(fixture.really_in("").len(), 4, "nothing temporary is left");
}

#[test]
fn of_a_copy_that_fails_or_takes_too_long_nothing_is_left() {
    let fixture = fixture();
    fs::create_dir_all(fixture.disk.join("from/a/b")).unwrap();
    fs::write(fixture.disk.join("from/a/file"), "x").unwrap();
    let slow =
        fixture
            .workspace
            .copy_within("/workspace/from", "/workspace/to", false, Duration::ZERO);
    let error = slow.unwrap_err();
    assert_eq!(error.failure, Failure::TooLarge);
    assert!(error.message.contains("so nothing was"), "{error}");
    assert_eq!(fixture.really_in(""), ["from"]);

    if !is_root() {
        return;
    }
    set_mode(fixture.disk.parent().unwrap(), 0o755);
    set_mode(&fixture.disk, 0o777);
    fs::write(fixture.disk.join("from/a/b/secret"), "x").unwrap();
    set_mode(&fixture.disk.join("from/a/b/secret"), 0o600);
    let refused = as_user(1234, || {
        let workspace = Workspace::open(&fixture.disk).unwrap();
        workspace.copy("/workspace/from", "/workspace/to", false)
    });
    let error = refused.unwrap_err();
    assert_eq!(error.failure, Failure::PermissionDenied);
    assert!(error.message.contains("from/a/b/secret"), "{error}");
    assert_eq!(fixture.really_in(""), ["from"]);
}

#[test]
fn a_delete_takes_all_or_nothing_and_is_shown_nowhere() {
    let fixture = fixture();
    fs::create_dir_all(fixture.disk.join("dir/inner")).unwrap();
    for name in ["a", "b", "dir/c"] {
        fs::write(fixture.disk.join(name), name).unwrap();
    }
    assert_eq!(fixture.delete(&[]), Err(Failure::Invalid));
    assert_eq!(fixture.delete(&["/workspace"]), Err(Failure::Invalid));
    let refused = fixture.delete(&["/workspace/a", "/workspace/none"]);
    assert_eq!(refused, Err(Failure::NotFound));
    fixture.check_names(&["dir", "a", "b"]);
    // What is in a folder that goes as well goes with it, whatever the order.
    let all = [
        "/workspace/dir/c",
        "/workspace/dir",
        "/workspace/a",
        "/workspace/dir/inner",
        "/workspace/a",
    ];
    let trash = fixture.delete(&all).unwrap();
    fixture.check_names(&["b"]);
    let (entries, _) = fixture.workspace.list("/workspace", 2).unwrap();
    assert_eq!(entries.len(), 1);
    for path in ["/workspace/.cove-trash", "/workspace/.cove-trash/x"] {
        assert_eq!(fixture.delete(&[path]), Err(Failure::Invalid), "{path}");
        let moved = fixture.rename("/workspace/b", path);
        assert_eq!(moved, Err(Failure::Invalid), "{path}");
    }
    assert_eq!(mode(&fixture.disk.join(".cove-trash")), 0o700);
    let ignore = fs::read(fixture.disk.join(".cove-trash/.gitignore")).unwrap();
    assert_eq!(ignore, b"*\n", "Git has nothing to say about it");

    fixture.restore(&trash).unwrap();
    fixture.check_names(&["dir", "a", "b"]);
    assert_eq!(fixture.read("/workspace/dir/c").unwrap(), b"dir/c");
    assert_eq!(fixture.really_in(".cove-trash"), [".gitignore"]);
    assert_eq!(fixture.restore(&trash), Err(Failure::NotFound), "only once");
}

#[test]
fn what_was_deleted_comes_back_whole_or_not_at_all() {
    let fixture = fixture();
    fs::create_dir(fixture.disk.join("dir")).unwrap();
    fs::write(fixture.disk.join("a"), "old").unwrap();
    fs::write(fixture.disk.join("dir/b"), "b").unwrap();
    let trash = fixture
        .delete(&["/workspace/dir/b", "/workspace/a"])
        .unwrap();
    fs::write(fixture.disk.join("a"), "new").unwrap();
    assert_eq!(fixture.restore(&trash), Err(Failure::Exists));
    assert_eq!(fixture.read("/workspace/a").unwrap(), b"new");
    assert_eq!(fixture.read("/workspace/dir/b"), Err(Failure::NotFound));
    fs::remove_file(fixture.disk.join("a")).unwrap();
    fs::rename(fixture.disk.join("dir"), fixture.disk.join("other")).unwrap();
    assert_eq!(fixture.restore(&trash), Err(Failure::NotADirectory));
    assert_eq!(fixture.read("/workspace/a"), Err(Failure::NotFound));
    fs::rename(fixture.disk.join("other"), fixture.disk.join("dir")).unwrap();
    fixture.restore(&trash).unwrap();
    assert_eq!(fixture.read("/workspace/a").unwrap(), b"old");
    assert_eq!(fixture.read("/workspace/dir/b").unwrap(), b"b");
    for id in ["", "..", "../dir", "0123456789abcdef", "0123456789ABCDEF"] {
        assert_eq!(fixture.restore(id), Err(Failure::NotFound), "{id}");
    }
}

#[test]
fn a_delete_that_was_cut_off_loses_nothing() {
    let fixture = fixture();
    fs::write(fixture.disk.join("a"), "a").unwrap();
    fs::write(fixture.disk.join("b"), "b").unwrap();
    let trash = fixture.delete(&["/workspace/a", "/workspace/b"]).unwrap();
    // As if the second had not been moved any more.
    let kept = fixture.disk.join(".cove-trash").join(&trash).join("1");
    fs::rename(kept, fixture.disk.join("b")).unwrap();
    fixture.restore(&trash).unwrap();
    fixture.check_names(&["a", "b"]);
}

#[test]
fn a_trash_that_somebody_else_has_made_leads_nowhere() {
    let fixture = fixture();
    fs::write(fixture.disk.join("a"), "a").unwrap();
    let trash = fixture.disk.join(".cove-trash");
    symlink(&fixture.outside, &trash).unwrap();
    assert_eq!(
        fixture.delete(&["/workspace/a"]),
        Err(Failure::NotADirectory)
    );
    fixture.workspace.empty_trash(SystemTime::now());
    assert_eq!(fs::read_dir(&fixture.outside).unwrap().count(), 1);
    fs::remove_file(&trash).unwrap();

    let id = "0123456789abcdef";
    let folder = trash.join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0"), "planted").unwrap();
    for (record, failure) in [
        (r#"{"paths":["/etc/planted"]}"#.to_owned(), Failure::Outside),
        (
            r#"{"paths":["/workspace/../planted"]}"#.to_owned(),
            Failure::Outside,
        ),
        (
            r#"{"paths":["/workspace/.cove-trash/x"]}"#.to_owned(),
            Failure::Invalid,
        ),
        (r#"{"paths":["/workspace"]}"#.to_owned(), Failure::Invalid),
        ("{".to_owned(), Failure::Invalid),
        ("[".repeat(1 << 21), Failure::Invalid),
    ] {
        fs::write(folder.join("where.json"), record).unwrap();
        assert_eq!(fixture.restore(id), Err(failure));
    }
    fs::remove_file(folder.join("where.json")).unwrap();
    mkfifoat(CWD, folder.join("where.json"), Mode::from_raw_mode(0o600)).unwrap();
    assert!(fixture.restore(id).is_err(), "a pipe is not waited for");
    assert_eq!(fs::read_dir(&fixture.outside).unwrap().count(), 1);
}

#[test]
fn the_trash_is_emptied_after_a_week_and_holds_a_hundred_deletes() {
    let fixture = fixture();
    let day = Duration::from_secs(24 * 60 * 60);
    let delete = |name: &str| {
        fs::create_dir_all(fixture.disk.join(name).join("locked")).unwrap();
        fs::write(fixture.disk.join(name).join("locked/file"), "x").unwrap();
        set_mode(&fixture.disk.join(name).join("locked"), 0o000);
        fixture.delete(&[&format!("/workspace/{name}")]).unwrap()
    };
    let old = delete("old");
    let is_kept = |id: &str| fixture.disk.join(".cove-trash").join(id).exists();
    let now = SystemTime::now();
    fixture.workspace.empty_trash(now + 6 * day);
    assert!(is_kept(&old));
    fixture.workspace.empty_trash(now - 100 * day);
    assert!(is_kept(&old), "a clock that was put back removes nothing");
    fixture.workspace.empty_trash(now + 8 * day);
    assert!(!is_kept(&old));
    assert_eq!(fixture.really_in(".cove-trash"), [".gitignore"]);

    let first = delete("first");
    let folder = File::open(fixture.disk.join(".cove-trash").join(&first)).unwrap();
    folder.set_modified(now - day).unwrap();
    for number in 0..100 {
        delete(&number.to_string());
    }
    fixture.workspace.empty_trash(now);
    assert!(!is_kept(&first));
    assert_eq!(fixture.really_in(".cove-trash").len(), 101);
}

#[test]
fn what_others_own_is_refused_and_stays() {
    if !is_root() {
        return;
    }
    let fixture = fixture();
    set_mode(fixture.disk.parent().unwrap(), 0o755);
    fs::create_dir(fixture.disk.join("theirs")).unwrap();
    fs::write(fixture.disk.join("theirs/file"), "x").unwrap();
    set_mode(&fixture.disk.join("theirs"), 0o755);
    set_mode(&fixture.disk, 0o777);
    let failures = as_user(1234, || {
        let workspace = Workspace::open(&fixture.disk).unwrap();
        let file = "/workspace/theirs/file";
        [
            workspace
                .create("/workspace/theirs/new", NewEntry::File)
                .err(),
            workspace.rename(file, "/workspace/mine").err(),
            workspace.delete(&[file.to_owned()]).err(),
        ]
        .map(|error| error.map(|error| error.failure))
    });
    assert_eq!(failures, [const { Some(Failure::PermissionDenied) }; 3]);
    assert_eq!(fixture.really_in("theirs"), ["file"]);
}
