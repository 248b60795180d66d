use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;

use rustix::fs::{CWD, mkfifoat};

use super::*;

/// A workspace in a directory of its own, with a directory beside it.
struct Fixture {
    _top: tempfile::TempDir,
    disk: PathBuf,
    outside: PathBuf,
    workspace: Workspace,
}

fn fixture() -> Fixture {
    let top = tempfile::tempdir().unwrap();
    let disk = top.path().join("workspace");
    let outside = top.path().join("outside");
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let workspace = Workspace::open(&disk).unwrap();
    Fixture {
        _top: top,
        disk,
        outside,
        workspace,
    }
}

impl Fixture {
    fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.workspace
            .read(path, 0, u32::MAX)
            .map(|piece| piece.content)
            .map_err(|error| error.failure)
    }

    fn revision(&self, path: &str) -> Revision {
        self.workspace.read(path, 0, 0).unwrap().revision
    }

    fn write(
        &self,
        path: &str,
        condition: &WriteCondition,
        content: &str,
    ) -> Result<Revision, Failure> {
        self.workspace
            .write(path, condition, content.as_bytes())
            .map_err(|error| error.failure)
    }

    fn save(&self, path: &str, content: &str) -> Result<Revision, Failure> {
        self.write(path, &WriteCondition::Anything, content)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let (entries, truncated) = self.workspace.list(path, u32::MAX).unwrap();
        assert!(!truncated);
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// What lies in the directory, whatever its name: nothing temporary may be left there.
    fn check_names(&self, expected: &[&str]) {
        assert_eq!(self.names("/workspace"), expected);
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let _ = writeln!(io::stderr(), "skipped: only root can act as several users");
    }
    is_root
}

/// Runs `act` as a user without privileges: user ids belong to threads.
fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_gid(Gid::from_raw(uid)).unwrap();
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_list_has_directories_first_then_names_without_regard_to_case() {
    let fixture = fixture();
    for name in ["b", "B", "a", "C", ".x"] {
        fs::write(fixture.disk.join(name), "").unwrap();
    }
    for name in ["z", "Y"] {
        fs::create_dir(fixture.disk.join(name)).unwrap();
    }
    fixture.check_names(&["Y", "z", ".x", "a", "B", "b", "C"]);
}

#[test]
fn an_entry_tells_what_a_name_stands_for() {
    let fixture = fixture();
    let disk = &fixture.disk;
    fs::create_dir(disk.join("dir")).unwrap();
    fs::write(disk.join("file"), "four").unwrap();
    set_mode(&disk.join("file"), 0o4750);
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_234_567);
    File::open(disk.join("file"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    mkfifoat(CWD, disk.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    symlink("dir", disk.join("to_dir")).unwrap();
    symlink("missing", disk.join("to_nothing")).unwrap();
    symlink(fixture.outside.join("secret"), disk.join("to_outside")).unwrap();
    let (entries, _) = fixture.workspace.list("/workspace/", 100).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.name, entry.kind, entry.target_kind))
        .collect();
    assert_eq!(
        found,
        [
            ("dir", EntryKind::Dir, None),
            ("file", EntryKind::File, None),
            ("pipe", EntryKind::Other, None),
            ("to_dir", EntryKind::Symlink, Some(EntryKind::Dir)),
            ("to_nothing", EntryKind::Symlink, None),
            ("to_outside", EntryKind::Symlink, None),
        ]
    );
    let expected = Entry {
        name: "file".into(),
        path: "/workspace/file".into(),
        kind: EntryKind::File,
        target_kind: None,
        size: 4,
        modified_ms: 1_234_567,
        mode: 0o4750,
        ignored: false,
        unreadable: false,
    };
    assert_eq!(
        entries.into_iter().find(|entry| entry.name == "file"),
        Some(expected)
    );
}

#[test]
fn a_list_tells_what_git_ignores() {
    let fixture = fixture();
    let disk = &fixture.disk;
    for folder in [
        ".git/info",
        "src/deep",
        "target/debug",
        "nested/.git",
        "kept",
    ] {
        fs::create_dir_all(disk.join(folder)).unwrap();
    }
    fs::write(disk.join(".git/info/exclude"), "mine.txt\n").unwrap();
    fs::write(
        disk.join(".gitignore"),
        "target/\n*.log\n!kept/*.log\n/src/deep/only\n",
    )
    .unwrap();
    fs::write(disk.join("src/.gitignore"), "!keep.log\n").unwrap();
    fs::write(disk.join("kept/.ignore"), "b.log\n").unwrap();
    for file in [
        "a.log",
        "mine.txt",
        "target/debug/app",
        "src/keep.log",
        "src/deep/only",
        "src/deep/other.log",
        "src/only",
        "nested/a.log",
        "kept/a.log",
        "kept/b.log",
        ".cove-0123456789abcdef.tmp",
    ] {
        fs::write(disk.join(file), "").unwrap();
    }
    symlink("target", disk.join("link")).unwrap();
    let check = |folder: &str, expected: &[&str]| {
        let (entries, _) = fixture.workspace.list(folder, 100).unwrap();
        let mark =
            |entry: &Entry| format!("{}{}", if entry.ignored { "-" } else { "+" }, entry.name);
        assert_eq!(
            entries.iter().map(mark).collect::<Vec<_>>(),
            expected,
            "{folder}"
        );
    };
    let root = [
        "+.git",
        "+kept",
        "+nested",
        "+src",
        "-target",
        "+.gitignore",
        "-a.log",
        "+link",
        "-mine.txt",
    ];
    check("/workspace", &root);
    check("/workspace/target", &["-debug"]);
    check("/workspace/target/debug", &["-app"]);
    check(
        "/workspace/src",
        &["+deep", "+.gitignore", "+keep.log", "+only"],
    );
    check("/workspace/src/deep", &["-only", "-other.log"]);
    // A repository in a repository has rules of its own.
    check("/workspace/nested", &["+.git", "+a.log"]);
    check("/workspace/kept", &["+.ignore", "+a.log", "-b.log"]);
    check("/workspace/link", &["+debug"]);
}

#[test]
fn the_root_can_be_written_to() {
    assert!(fixture().workspace.is_writable());
}

#[test]
fn the_revision_of_a_symlink_is_that_of_its_target() {
    let fixture = fixture();
    fixture.save("/workspace/file", "1").unwrap();
    symlink("file", fixture.disk.join("link")).unwrap();
    let revision = fixture.revision("/workspace/file");
    assert_eq!(revision, fixture.revision("/workspace/link"));
}

#[test]
fn a_list_stops_at_its_limit_and_says_so() {
    let fixture = fixture();
    for name in ["a", "b", "c"] {
        fs::write(fixture.disk.join(name), "").unwrap();
    }
    let (entries, truncated) = fixture.workspace.list("/workspace", 2).unwrap();
    assert_eq!((entries.len(), truncated), (2, true));
    let (entries, truncated) = fixture.workspace.list("/workspace", 3).unwrap();
    assert_eq!((entries.len(), truncated), (3, false));
}

#[test]
fn a_list_always_fits_in_a_frame() {
    use crate::protocol::{Reply, Response, encode};
    let fixture = fixture();
    // The worst that a name can do: every byte takes six in JSON, in the name and in the path.
    let deep = ["\u{1}".repeat(255).as_str(); 8].join("/");
    fs::create_dir_all(fixture.disk.join(&deep)).unwrap();
    for number in 0..2000 {
        fs::write(
            fixture
                .disk
                .join(&deep)
                .join(format!("{number:0>4}{}", "\u{1}".repeat(251))),
            "",
        )
        .unwrap();
    }
    let (entries, truncated) = fixture
        .workspace
        .list(&format!("/workspace/{deep}"), 10_000)
        .unwrap();
    assert!(truncated);
    assert!(entries.len() > 1000);
    let result = Ok(Reply::List { entries, truncated });
    assert!(encode(&Response { result }, &[]).is_ok());
}

#[test]
fn names_of_any_bytes_can_be_listed_written_and_read() {
    let fixture = fixture();
    for name in [
        &b"a\xff\xfeb"[..],
        b"new\nline",
        b"\xef\xb7\x90",
        b" ",
        b"\"\\",
        "é".as_bytes(),
    ] {
        let path = WorkspacePath::default().join(name).to_string();
        fixture
            .write(&path, &WriteCondition::Missing, "content")
            .unwrap();
        assert_eq!(
            fs::read(fixture.disk.join(OsStr::from_bytes(name))).unwrap(),
            b"content"
        );
        let (entries, _) = fixture.workspace.list("/workspace", 10).unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (&*entry.name, &*entry.path))
            .collect();
        assert_eq!(found, [(&*display_name(name), &*path)]);
        assert_eq!(fixture.read(&path), Ok(b"content".to_vec()));
        fs::remove_file(fixture.disk.join(OsStr::from_bytes(name))).unwrap();
    }
}

#[test]
fn a_file_is_read_in_pieces() {
    let fixture = fixture();
    fixture.save("/workspace/file", "0123456789").unwrap();
    let check = |offset, limit, expected: &str, truncated| {
        let piece = fixture
            .workspace
            .read("/workspace/file", offset, limit)
            .unwrap();
        assert_eq!(
            (piece.content.as_slice(), piece.size, piece.truncated),
            (expected.as_bytes(), 10, truncated)
        );
    };
    check(0, 4, "0123", true);
    check(4, 4, "4567", true);
    check(8, 4, "89", false);
    check(0, 10, "0123456789", false);
    check(10, 4, "", false);
    check(u64::MAX, 4, "", false);
    check(0, 0, "", true);
}

#[test]
fn a_read_never_exceeds_a_frame() {
    let fixture = fixture();
    File::create(fixture.disk.join("file"))
        .unwrap()
        .set_len(MAX_BODY as u64 + 1)
        .unwrap();
    let piece = fixture
        .workspace
        .read("/workspace/file", 0, u32::MAX)
        .unwrap();
    assert_eq!((piece.content.len(), piece.truncated), (MAX_BODY, true));
}

#[test]
fn failures_are_told_apart() {
    let fixture = fixture();
    fs::create_dir(fixture.disk.join("dir")).unwrap();
    fs::write(fixture.disk.join("file"), "").unwrap();
    symlink("loop", fixture.disk.join("loop")).unwrap();
    symlink("../outside", fixture.disk.join("out")).unwrap();
    let list = |path| {
        fixture
            .workspace
            .list(path, 10)
            .map(|_| ())
            .map_err(|error| error.failure)
    };
    assert_eq!(list("/workspace/missing"), Err(Failure::NotFound));
    assert_eq!(list("/workspace/file"), Err(Failure::NotADirectory));
    assert_eq!(list("/workspace/out"), Err(Failure::Outside));
    assert_eq!(list("/workspace/loop"), Err(Failure::Invalid));
    assert_eq!(list("/workspace/dir/../.."), Err(Failure::Outside));
    assert_eq!(fixture.read("/workspace/dir"), Err(Failure::IsADirectory));
    assert_eq!(fixture.read("/workspace"), Err(Failure::IsADirectory));
    assert_eq!(
        fixture.read("/workspace/file/x"),
        Err(Failure::NotADirectory)
    );
    assert_eq!(fixture.read("/workspace/out/secret"), Err(Failure::Outside));
    assert_eq!(
        fixture.read("/workspace/../outside/secret"),
        Err(Failure::Outside)
    );
    assert_eq!(fixture.read("/etc/passwd"), Err(Failure::Outside));
    assert_eq!(fixture.read("/workspace/a\0b"), Err(Failure::Invalid));
    assert_eq!(
        fixture.save("/workspace/dir", ""),
        Err(Failure::IsADirectory)
    );
    assert_eq!(fixture.save("/workspace", ""), Err(Failure::IsADirectory));
    assert_eq!(
        fixture.save("/workspace/missing/file", ""),
        Err(Failure::NotFound)
    );
    assert_eq!(
        fixture.save("/workspace/out/new", ""),
        Err(Failure::Outside)
    );
    assert_eq!(fs::read_dir(&fixture.outside).unwrap().count(), 1);
    let error = fixture
        .workspace
        .read("/workspace/missing", 0, 1)
        .unwrap_err();
    assert_eq!(
        error.message,
        "failed to open `/workspace/missing`: No such file or directory (os error 2)"
    );
}

#[test]
fn a_pipe_a_socket_or_a_device_is_refused_and_does_not_hang() {
    let fixture = fixture();
    mkfifoat(CWD, fixture.disk.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.disk.join("socket")).unwrap();
    for name in ["pipe", "socket"] {
        let path = format!("/workspace/{name}");
        assert_eq!(fixture.read(&path), Err(Failure::Invalid));
        assert_eq!(fixture.save(&path, "x"), Err(Failure::Invalid));
        let error = fixture.workspace.read(&path, 0, 1).unwrap_err();
        assert_eq!(error.message, format!("`{path}` is not a regular file"));
    }
    fixture.check_names(&["pipe", "socket"]);
}

#[test]
fn a_write_replaces_the_content_and_keeps_the_mode() {
    let fixture = fixture();
    let file = fixture.disk.join("file");
    for kept in [0o755, 0o640, 0o600, 0o666] {
        fs::write(&file, "a longer old content").unwrap();
        set_mode(&file, kept);
        let before = inode(&file);
        fixture.save("/workspace/file", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(mode(&file), kept);
        assert_ne!(inode(&file), before, "it was replaced, not overwritten");
    }
    fixture.check_names(&["file"]);
}

#[test]
fn a_write_takes_set_user_id_away_like_any_write() {
    let fixture = fixture();
    fs::write(fixture.disk.join("file"), "").unwrap();
    set_mode(&fixture.disk.join("file"), 0o4755);
    fixture.save("/workspace/file", "new").unwrap();
    assert_eq!(mode(&fixture.disk.join("file")), 0o755);
}

#[test]
fn a_new_file_can_be_read_by_all_as_far_as_the_umask_allows() {
    let fixture = fixture();
    let reference = fixture.disk.join("reference");
    fs::write(&reference, "").unwrap();
    let revision = fixture.save("/workspace/new", "").unwrap();
    assert_eq!(mode(&fixture.disk.join("new")), 0o644 & mode(&reference));
    assert_eq!(revision, fixture.revision("/workspace/new"));
}

#[test]
fn a_new_file_does_not_replace_anything() {
    let fixture = fixture();
    fixture
        .write("/workspace/file", &WriteCondition::Missing, "first")
        .unwrap();
    assert_eq!(
        fixture.write("/workspace/file", &WriteCondition::Missing, "second"),
        Err(Failure::Exists)
    );
    symlink("missing", fixture.disk.join("broken")).unwrap();
    assert_eq!(
        fixture.write("/workspace/broken", &WriteCondition::Missing, "x"),
        Err(Failure::Exists)
    );
    assert_eq!(fixture.read("/workspace/file"), Ok(b"first".to_vec()));
    fixture.check_names(&["broken", "file"]);
}

#[test]
fn a_write_that_expects_another_state_is_a_conflict_with_the_present_one() {
    let fixture = fixture();
    let first = fixture.save("/workspace/file", "1").unwrap();
    let second = fixture.save("/workspace/file", "2").unwrap();
    assert_eq!(second, fixture.revision("/workspace/file"));
    let expect = |revision: &Revision| WriteCondition::Unchanged {
        revision: revision.clone(),
    };
    assert_eq!(
        fixture.write("/workspace/file", &expect(&first), "x"),
        Err(Failure::Conflict {
            revision: Some(second.clone())
        })
    );
    fixture
        .write("/workspace/file", &expect(&second), "3")
        .unwrap();
    assert_eq!(fixture.read("/workspace/file"), Ok(b"3".to_vec()));
    fs::remove_file(fixture.disk.join("file")).unwrap();
    assert_eq!(
        fixture.write("/workspace/file", &expect(&second), "x"),
        Err(Failure::Conflict { revision: None })
    );
    fixture.check_names(&[]);
}

#[test]
fn of_two_writes_that_expect_the_same_state_one_wins() {
    let fixture = fixture();
    let revision = fixture.save("/workspace/file", "old").unwrap();
    let condition = WriteCondition::Unchanged { revision };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let writes: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| fixture.write("/workspace/file", &condition, "new")))
            .collect();
        writes
            .into_iter()
            .map(|write| write.join().unwrap())
            .collect()
    });
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
}

#[test]
fn writes_of_the_same_size_in_quick_succession_differ() {
    let fixture = fixture();
    fs::write(fixture.disk.join("file"), "0").unwrap();
    fs::hard_link(fixture.disk.join("file"), fixture.disk.join("other_name")).unwrap();
    for path in ["/workspace/replaced", "/workspace/file"] {
        let mut last = fixture.save(path, "0").unwrap();
        for _ in 0..200 {
            let next = fixture.save(path, "1").unwrap();
            assert_ne!(next, last);
            assert_eq!(next, fixture.revision(path));
            last = next;
        }
    }
}

#[test]
fn a_symlink_stays_and_its_target_is_written() {
    let fixture = fixture();
    fs::create_dir(fixture.disk.join("dir")).unwrap();
    fs::write(fixture.disk.join("dir/target"), "old").unwrap();
    symlink("dir/target", fixture.disk.join("link")).unwrap();
    symlink(fixture.disk.join("dir/new"), fixture.disk.join("broken")).unwrap();
    symlink("../outside/secret", fixture.disk.join("out")).unwrap();
    symlink("../outside/new", fixture.disk.join("out_new")).unwrap();
    fixture.save("/workspace/link", "new").unwrap();
    fixture.save("/workspace/broken", "made").unwrap();
    assert!(fixture.disk.join("link").is_symlink());
    assert_eq!(
        fs::read_to_string(fixture.disk.join("dir/target")).unwrap(),
        "new"
    );
    assert_eq!(
        fs::read_to_string(fixture.disk.join("dir/new")).unwrap(),
        "made"
    );
    assert_eq!(fixture.save("/workspace/out", "x"), Err(Failure::Outside));
    assert_eq!(
        fixture.save("/workspace/out_new", "x"),
        Err(Failure::Outside)
    );
    assert_eq!(
        fs::read_to_string(fixture.outside.join("secret")).unwrap(),
        "secret"
    );
    assert_eq!(fs::read_dir(&fixture.outside).unwrap().count(), 1);
}

#[test]
fn all_names_of_a_file_keep_naming_it() {
    let fixture = fixture();
    fs::write(fixture.disk.join("file"), "a longer old content").unwrap();
    fs::hard_link(fixture.disk.join("file"), fixture.disk.join("other_name")).unwrap();
    fixture.save("/workspace/file", "new").unwrap();
    assert_eq!(
        inode(&fixture.disk.join("file")),
        inode(&fixture.disk.join("other_name"))
    );
    assert_eq!(fixture.read("/workspace/other_name"), Ok(b"new".to_vec()));
    fixture.save("/workspace/other_name", "").unwrap();
    assert_eq!(fixture.read("/workspace/file"), Ok(vec![]));
    fixture.check_names(&["file", "other_name"]);
}

#[test]
fn an_owner_is_kept() {
    if !is_root() {
        return;
    }
    let fixture = fixture();
    let file = fixture.disk.join("file");
    fs::write(&file, "old").unwrap();
    chown(&file, Some(1234), Some(2345)).unwrap();
    fixture.save("/workspace/file", "new").unwrap();
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 2345));
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_in_place() {
    if !is_root() {
        return;
    }
    let fixture = fixture();
    let disk = &fixture.disk;
    let prepare = |name: &str, owner: u32, directory_mode: u32| {
        let directory = disk.join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "a longer old content").unwrap();
        set_mode(&directory.join("file"), 0o666);
        chown(directory.join("file"), Some(owner), Some(owner)).unwrap();
        set_mode(&directory, directory_mode);
        let path = format!("/workspace/{name}/file");
        let before = inode(&directory.join("file"));
        as_user(1000, || fixture.save(&path, "new")).unwrap();
        let found = fs::metadata(directory.join("file")).unwrap();
        assert_eq!(
            (found.ino(), found.uid(), found.mode() & 0o777),
            (before, owner, 0o666),
            "{name}"
        );
        assert_eq!(fixture.read(&path), Ok(b"new".to_vec()));
        assert_eq!(fixture.names(&format!("/workspace/{name}")), ["file"]);
    };
    set_mode(disk.parent().unwrap(), 0o755);
    prepare("directory_not_writable", 1000, 0o755);
    prepare("of_someone_else", 1001, 0o777);
    prepare("sticky", 1001, 0o1777);
}

#[test]
fn a_file_that_the_user_may_not_write_stays_even_in_a_writable_directory() {
    if !is_root() {
        return;
    }
    let fixture = fixture();
    set_mode(fixture.disk.parent().unwrap(), 0o755);
    set_mode(&fixture.disk, 0o777);
    fs::write(fixture.disk.join("file"), "old").unwrap();
    chown(fixture.disk.join("file"), Some(1000), None).unwrap();
    set_mode(&fixture.disk.join("file"), 0o444);
    fs::create_dir(fixture.disk.join("closed")).unwrap();
    set_mode(&fixture.disk.join("closed"), 0o700);
    as_user(1000, || {
        assert_eq!(
            fixture.save("/workspace/file", "new"),
            Err(Failure::PermissionDenied)
        );
        assert_eq!(
            fixture.save("/workspace/closed/file", "new"),
            Err(Failure::PermissionDenied)
        );
        assert_eq!(
            fixture
                .workspace
                .list("/workspace/closed", 1)
                .unwrap_err()
                .failure,
            Failure::PermissionDenied
        );
    });
    assert_eq!(fixture.read("/workspace/file"), Ok(b"old".to_vec()));
    fixture.check_names(&["closed", "file"]);
}

/// Runs `act` on a workspace on a disk of one megabyte.
fn on_a_small_disk(act: impl FnOnce(&Workspace, &Path)) {
    let disk = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new("mount")
            .args(arguments)
            .arg(disk.path())
            .output()
    };
    if !is_root()
        || !mount(&["-t", "tmpfs", "-o", "size=1m", "none"])
            .is_ok_and(|output| output.status.success())
    {
        let _ = writeln!(io::stderr(), "skipped: mounting is not permitted");
        return;
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        act(&Workspace::open(disk.path()).unwrap(), disk.path());
    }));
    std::process::Command::new("umount")
        .arg("-l")
        .arg(disk.path())
        .status()
        .unwrap();
    outcome.unwrap();
}

#[test]
fn a_write_that_finds_the_disk_full_leaves_the_old_content() {
    on_a_small_disk(|workspace, disk| {
        let half = vec![b'o'; 700 << 10];
        let too_much = vec![b'n'; 2 << 20];
        let save = |path, content: &[u8]| workspace.write(path, &WriteCondition::Anything, content);
        save("/workspace/file", &half).unwrap();
        assert_eq!(
            save("/workspace/file", &half).unwrap_err().failure,
            Failure::NoSpace
        );
        assert_eq!(
            save("/workspace/new", &half).unwrap_err().failure,
            Failure::NoSpace
        );
        assert_eq!(fs::read(disk.join("file")).unwrap(), half);
        // With two names it is written in place: the same room serves.
        fs::hard_link(disk.join("file"), disk.join("other")).unwrap();
        assert_eq!(
            save("/workspace/file", &too_much).unwrap_err().failure,
            Failure::NoSpace
        );
        assert_eq!(fs::read(disk.join("other")).unwrap(), half);
        save("/workspace/file", &half).unwrap();
        let (entries, _) = workspace.list("/workspace", 10).unwrap();
        assert_eq!(
            entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(),
            ["file", "other"]
        );
    });
}

#[test]
fn a_deep_path_is_reached() {
    let fixture = fixture();
    let deep = ["d"; 200].join("/");
    fs::create_dir_all(fixture.disk.join(&deep)).unwrap();
    fixture
        .save(&format!("/workspace/{deep}/file"), "deep")
        .unwrap();
    assert_eq!(
        fixture.read(&format!("/workspace/{deep}/file")),
        Ok(b"deep".to_vec())
    );
}

mod entries;
mod finding;
mod searching;
mod transferring;
