//! Files that a stranger tells are made whole under their names, and nowhere else.

use bytes::Bytes;

use super::*;

fn member(path: &[u8], kind: Kind, mode: u32) -> Event {
    Event::Member(Member {
        path: path.to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        modified: Modified {
            seconds: 1_000_000_000,
            nanoseconds: 5,
        },
    })
}

fn folder(path: &str) -> Event {
    member(path.as_bytes(), Kind::Directory, 0o755)
}

fn file(path: &str, size: u64) -> Event {
    let extents = None;
    member(path.as_bytes(), Kind::File { size, extents }, 0o4750)
}

fn data(offset: u64, bytes: &'static str) -> Event {
    let bytes = Bytes::from_static(bytes.as_bytes());
    Event::Data { offset, bytes }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Places what is told in a folder, and returns how that ended and what is there then.
fn check(wanted: &[&str], events: Vec<Event>) -> (Result<(), Error>, Vec<String>) {
    let there = tempfile::tempdir().unwrap();
    let place = there.path().join("place");
    fs::create_dir(&place).unwrap();
    let names = wanted.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut placer = Placer::new(Destination::Folder(place.clone()), names);
    let taken = events.into_iter().try_for_each(|event| placer.take(event));
    let ended = match taken {
        Ok(()) => placer.finish(),
        Err(error) => {
            drop(placer);
            Err(error)
        }
    };
    assert_eq!(names_in(there.path()), ["place"], "something is beside it");
    (ended, names_in(&place))
}

#[test]
fn what_was_asked_for_appears_when_it_is_whole() {
    let (ended, names) = check(
        &["a", "b"],
        vec![folder("a"), file("a/x", 2), data(0, "xy"), file("b", 0)],
    );
    ended.unwrap();
    assert_eq!(names, ["a", "b"]);
    let (ended, names) = check(
        &["a", "b"],
        vec![folder("a"), file("a/x", 2), data(0, "xy")],
    );
    assert!(matches!(ended, Err(Error::FileNotFound(name)) if name == "b"));
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn what_is_told_leads_nowhere_else() {
    let link = |path: &str, target: &str| {
        let kind = Kind::Symlink(target.as_bytes().to_vec());
        member(path.as_bytes(), kind, 0o777)
    };
    let hard = |path: &str, target: &str| {
        let kind = Kind::HardLink(target.as_bytes().to_vec());
        member(path.as_bytes(), kind, 0)
    };
    for events in [
        vec![link("a", ".."), file("a/evil", 0)],
        vec![folder("a"), link("a/out", "../.."), file("a/out/evil", 0)],
        vec![
            folder("a"),
            link("a/out", "../.."),
            folder("a/out"),
            file("a/out/evil", 0),
        ],
        vec![
            folder("a"),
            link("a/out", "../.."),
            hard("a/evil", "a/out/place"),
        ],
        vec![folder("a"), hard("a/evil", "../place")],
        vec![folder("a"), file("a/../../evil", 0)],
        vec![folder("a"), file("a//evil", 0)],
        vec![file("a/evil", 0)],
        vec![file("", 0)],
        vec![file("other", 0)],
        vec![folder("a"), folder("a/b"), file("a/b", 0)],
        vec![folder("a"), folder("a")],
        vec![member(b"a", Kind::Device, 0)],
        vec![member(b"a", Kind::Pipe, 0)],
        vec![data(0, "x")],
        vec![Event::Void],
    ] {
        let shown = format!("{events:?}");
        let (ended, names) = check(&["a"], events);
        assert!(ended.is_err(), "{shown}");
        assert!(names.is_empty(), "{shown}: {names:?}");
    }
}

#[test]
fn a_file_that_changed_counts_as_it_came_last() {
    let there = tempfile::tempdir().unwrap();
    let place = there.path().join("chosen name");
    fs::write(&place, "what the user agreed to lose").unwrap();
    let mut placer = Placer::new(Destination::File(place.clone()), vec![b"a".to_vec()]);
    for event in [
        file("a", 3),
        data(0, "one"),
        Event::Void,
        file("a", 2),
        data(0, "tw"),
    ] {
        placer.take(event).unwrap();
        assert_eq!(fs::read(&place).unwrap().len(), 28);
    }
    placer.finish().unwrap();
    assert_eq!(fs::read_to_string(&place).unwrap(), "tw");
    assert_eq!(names_in(there.path()), ["chosen name"]);
}

#[test]
fn a_file_goes_on_where_it_broke_off_if_it_is_the_same() {
    let there = tempfile::tempdir().unwrap();
    let place = there.path().join("a");
    let placer = || {
        let mut placer = Placer::new(Destination::File(place.clone()), vec![b"a".to_vec()]);
        placer.take(file("a", 6)).unwrap();
        placer.take(data(0, "abc")).unwrap();
        placer.go_on();
        placer
    };
    let mut same = placer();
    same.take(file("a", 6)).unwrap();
    same.take(data(3, "def")).unwrap();
    same.finish().unwrap();
    assert_eq!(fs::read_to_string(&place).unwrap(), "abcdef");
    placer().take(file("a", 7)).unwrap_err();
    placer().take(file("b", 6)).unwrap_err();
}

#[test]
fn nothing_that_is_there_is_replaced_in_a_folder() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("a.tar.gz"), "mine").unwrap();
    fs::create_dir(there.path().join("d")).unwrap();
    let names = vec![b"a.tar.gz".to_vec(), b"d".to_vec()];
    let mut placer = Placer::new(Destination::Folder(there.path().to_owned()), names);
    for event in [
        file("a.tar.gz", 1),
        data(0, "x"),
        folder("d"),
        file("d/in", 0),
    ] {
        placer.take(event).unwrap();
    }
    placer.finish().unwrap();
    assert_eq!(
        names_in(there.path()),
        ["a.tar (2).gz", "a.tar.gz", "d", "d (2)"]
    );
    assert_eq!(
        fs::read_to_string(there.path().join("a.tar.gz")).unwrap(),
        "mine"
    );
}

#[cfg(unix)]
#[test]
fn modes_and_times_come_along_and_set_user_id_does_not() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let there = tempfile::tempdir().unwrap();
    let mut placer = Placer::new(
        Destination::Folder(there.path().to_owned()),
        vec![b"d".to_vec()],
    );
    let events = [
        member(b"d", Kind::Directory, 0o2555),
        file("d/f", 1),
        data(0, "x"),
        member(b"d/l", Kind::Symlink(b"/etc/passwd".to_vec()), 0o777),
    ];
    for event in events {
        placer.take(event).unwrap();
    }
    placer.finish().unwrap();
    for (name, mode) in [("d", 0o555), ("d/f", 0o750), ("d/l", 0o777)] {
        let facts = fs::symlink_metadata(there.path().join(name)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!(
            (facts.mtime(), facts.mtime_nsec()),
            (1_000_000_000, 5),
            "{name}"
        );
    }
    let d = there.path().join("d");
    fs::set_permissions(d, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn names_that_windows_does_not_take_are_refused_there() {
    for name in [
        "con", "NUL.txt", "aux .c", "com1", "LPT9.log", "com²", "a:b", "a?", "a*", "a|b", "a\\b",
        "a\"", "<a>", "tab\t", "dot.", "space ",
    ] {
        assert!(windows_takes(name.as_bytes()).is_err(), "{name}");
        assert!(
            local_name(System::Windows, name.as_bytes()).is_err(),
            "{name}"
        );
    }
    for name in [
        "console",
        "com0",
        "com10",
        "lpt",
        ".env",
        "a b",
        "häuser.txt",
    ] {
        windows_takes(name.as_bytes()).unwrap();
    }
    windows_takes(b"caf\xe9").unwrap_err();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
        local_name(System::Unix, name).unwrap_err();
    }
}
