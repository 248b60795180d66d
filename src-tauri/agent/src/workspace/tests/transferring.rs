//! What comes into a folder is whole under its names or not there, and what goes out is told from where it is wanted.

use super::*;
use crate::protocol::{Decoder, Resume, Taken, encode};
use crate::tree::{Facts, Piece as Told, Why};

const FACTS: Facts = Facts {
    mode: 0o4755,
    uid: 4_242,
    gid: 4_242,
    modified: (1_000_000_000, 5),
};

fn text(text: &str) -> String {
    text.to_owned()
}

fn file(name: &str, content: &str) -> Vec<(Told, Vec<u8>)> {
    let begin = Told::File {
        name: text(name),
        facts: FACTS,
        size: content.len() as u64,
        extents: None,
    };
    vec![
        (begin, Vec::new()),
        (Told::Content { offset: 0 }, content.into()),
        (Told::Whole, Vec::new()),
    ]
}

fn enter(name: &str) -> Vec<(Told, Vec<u8>)> {
    let facts = Some(Facts {
        mode: 0o2555,
        ..FACTS
    });
    let name = text(name);
    vec![(Told::Enter { name, facts }, Vec::new())]
}

fn bytes(pieces: &[(Told, Vec<u8>)]) -> Vec<u8> {
    let frames = pieces.iter().map(|(piece, body)| encode(piece, body));
    frames.flat_map(Result::unwrap).collect()
}

fn whole(pieces: &[Vec<(Told, Vec<u8>)>]) -> Vec<u8> {
    let mut pieces = pieces.concat();
    pieces.push((Told::End, Vec::new()));
    bytes(&pieces)
}

impl Fixture {
    fn receive(&self, names: &[&str], taken: Taken, told: &[u8]) -> Result<(), (Why, String)> {
        let names: Vec<_> = names.iter().map(|name| text(name)).collect();
        let incoming = self.workspace.incoming("/workspace", &names, taken);
        let incoming = incoming.unwrap();
        assert_eq!(incoming.occupied, Vec::<String>::new());
        let received = self.workspace.receive(&incoming, told);
        received.map_err(|failed| (failed.why, failed.message))
    }

    fn top_names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.disk).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Tells entries, and returns the pieces without the counts.
    fn told(&self, paths: &[&str], resume: Option<&Resume>) -> Vec<Told> {
        let paths: Vec<_> = paths.iter().map(|path| text(path)).collect();
        let mut output = Vec::new();
        let outgoing = self.workspace.outgoing(&paths, resume).unwrap();
        outgoing.tell(&mut output).unwrap();
        let mut decoder = Decoder::<Told>::new();
        decoder.push(&output);
        let frames = std::iter::from_fn(|| decoder.next_frame().unwrap());
        let pieces = frames.map(|frame| frame.header);
        pieces
            .filter(|piece| !matches!(piece, Told::Total(_)))
            .collect()
    }
}

#[test]
fn what_comes_has_its_names_when_all_of_it_is_whole() {
    let fixture = fixture();
    let link = Told::HardLink {
        name: text("again"),
        path: vec![text("d"), text("in")],
    };
    let pieces = [
        enter("d"),
        file("in", "in a folder that may not be written to"),
        vec![(Told::Leave, Vec::new()), (link, Vec::new())],
        file("a", "1"),
    ];
    let told = whole(&pieces);
    // Wherever it breaks off, nothing is there.
    for cut in 0..told.len() {
        let told = &told[..cut];
        let (why, _) = fixture.receive(&["d"], Taken::Refuse, told).unwrap_err();
        assert_eq!(
            (why, fixture.top_names()),
            (Why::Invalid, vec![]),
            "at {cut}"
        );
    }
    fixture.receive(&["d", "a"], Taken::Refuse, &told).unwrap();
    assert_eq!(fixture.top_names(), ["a", "again", "d"]);
    let facts = |name: &str| fs::metadata(fixture.disk.join(name)).unwrap();
    assert_eq!(facts("again").ino(), facts("d/in").ino());
    assert_eq!(facts("d").mode() & 0o7777, 0o555);
    assert_eq!(facts("a").mode() & 0o7777, 0o755);
    assert_eq!(
        (facts("d").mtime(), facts("a").mtime_nsec()),
        (1_000_000_000, 5)
    );
    // They are whose who makes them is, whatever is told.
    assert_eq!(facts("a").uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn what_is_there_stays_gets_company_or_goes_into_the_trash() {
    let fixture = fixture();
    let at = |name: &str| fixture.disk.join(name);
    fs::write(at("a.txt"), "old").unwrap();
    fs::create_dir(at("d")).unwrap();
    let names = [text("a.txt"), text("b"), text("d")];
    let incoming = fixture
        .workspace
        .incoming("/workspace", &names, Taken::Refuse);
    assert_eq!(incoming.unwrap().occupied, ["a.txt", "d"]);
    let told = whole(&[file("a.txt", "new"), enter("d")]);
    let names = ["a.txt", "d"];
    fixture.receive(&names, Taken::KeepBoth, &told).unwrap();
    assert_eq!(fixture.top_names(), ["a copy.txt", "a.txt", "d", "d copy"]);
    assert_eq!(fs::read(at("a.txt")).unwrap(), b"old");
    fixture.receive(&names, Taken::Replace, &told).unwrap();
    assert_eq!(fs::read(at("a.txt")).unwrap(), b"new");
    assert_eq!(
        fixture.top_names(),
        [".cove-trash", "a copy.txt", "a.txt", "d", "d copy"]
    );
    // What comes to be there meanwhile stays, too.
    let names = [text("late")];
    let incoming = fixture
        .workspace
        .incoming("/workspace", &names, Taken::Refuse);
    fs::write(at("late"), "mine").unwrap();
    let told = whole(&[file("late", "new")]);
    let received = fixture.workspace.receive(&incoming.unwrap(), &*told);
    assert!(received.unwrap_err().message.contains("late"));
    assert_eq!(fs::read(at("late")).unwrap(), b"mine");
    assert!(!fixture.top_names().iter().any(|name| name.contains(".tmp")));
}

#[test]
fn nothing_comes_into_the_trash_or_from_outside() {
    let fixture = fixture();
    symlink(&fixture.outside, fixture.disk.join("out")).unwrap();
    fs::create_dir(fixture.disk.join(TRASH)).unwrap();
    let name = [text("a")];
    let incoming = |folder: &str, names: &[String]| {
        let incoming = fixture.workspace.incoming(folder, names, Taken::Refuse);
        incoming.map(drop).map_err(|error| error.failure)
    };
    for (folder, failure) in [
        ("/workspace/out", Failure::Outside),
        ("/workspace/..", Failure::Outside),
        ("/workspace/.cove-trash", Failure::Invalid),
        ("/workspace/none", Failure::NotFound),
    ] {
        assert_eq!(incoming(folder, &name), Err(failure), "{folder}");
    }
    for name in ["..", "", "a/b", TRASH] {
        let names = [text(name)];
        assert_eq!(
            incoming("/workspace", &names),
            Err(Failure::Invalid),
            "{name}"
        );
    }
    assert_eq!(incoming("/workspace", &[]), Err(Failure::Invalid));
    for path in ["/workspace", "/workspace/.cove-trash", "/workspace/none"] {
        let outgoing = fixture.workspace.outgoing(&[text(path)], None);
        assert!(outgoing.is_err(), "{path}");
    }
    // A link is told itself.
    let told = fixture.told(&["/workspace/out"], None);
    assert!(
        matches!(&told[..], [Told::Symlink { .. }, Told::End]),
        "{told:?}"
    );
}

#[test]
fn a_file_is_told_from_where_it_broke_off_as_long_as_it_is_the_same() {
    let fixture = fixture();
    let path = fixture.disk.join("a");
    fs::write(&path, "0123456789").unwrap();
    let paths = [text("/workspace/a")];
    let outgoing = |resume: Option<&Resume>| fixture.workspace.outgoing(&paths, resume);
    // A change within the same tick of the clock would not be seen.
    assert_eq!(outgoing(None).unwrap().revision, None);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(long_ago).unwrap();
    let revision = outgoing(None).unwrap().revision.unwrap();
    let resume = Resume {
        offset: 4,
        revision,
    };
    let told = fixture.told(&["/workspace/a"], Some(&resume));
    let [
        Told::File { size, extents, .. },
        Told::Content { offset },
        Told::Whole,
        Told::End,
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        (*size, *offset, extents.clone()),
        (10, 4, Some(vec![(4, 6)]))
    );
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(long_ago).unwrap();
    let changed = outgoing(Some(&resume)).map(drop).unwrap_err();
    assert!(
        matches!(changed.failure, Failure::Conflict { .. }),
        "{changed:?}"
    );
}

#[test]
fn what_a_killed_daemon_left_in_half_is_shown_nowhere_and_goes() {
    let fixture = fixture();
    let left = ".cove-0123456789abcdef01234567.tmp";
    let at = |path: &str| fixture.disk.join(path);
    let make = || {
        for folder in ["", "d", "d/deep"] {
            fs::create_dir_all(at(folder).join(left).join("in")).unwrap();
            fs::write(at(folder).join(left).join("in/file"), "half").unwrap();
        }
        for (path, content) in [
            ("d/.cove-0123456789abcdef.tmp", "half"),
            ("d/file", "kept"),
            (".git/.cove-0123456789abcdef.tmp", "git's"),
        ] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), content).unwrap();
        }
    };
    make();
    let outside = fixture.outside.join(left);
    fs::create_dir(&outside).unwrap();
    symlink(&fixture.outside, at("d/out")).unwrap();
    symlink(
        &outside,
        at("d").join(format!(".cove-{}.tmp", "a".repeat(24))),
    )
    .unwrap();
    // This process is still at it.
    let own = at("d").join(temporary_name().unwrap());
    fs::write(&own, "half").unwrap();

    let told = fixture.told(&["/workspace/d"], None);
    let names = told.iter().filter_map(|piece| match piece {
        Told::Enter { name, .. } | Told::File { name, .. } | Told::Symlink { name, .. } => {
            Some(name.as_str())
        }
        _ => None,
    });
    assert_eq!(names.collect::<Vec<_>>(), ["d", "deep", "file", "out"]);
    let copied = fixture
        .workspace
        .copy("/workspace/d", "/workspace/copy", false);
    copied.unwrap();
    let mut copied: Vec<_> = fs::read_dir(at("copy")).unwrap().flatten().collect();
    copied.retain(|entry| entry.file_name().as_bytes().starts_with(b".cove-"));
    assert_eq!(copied.len(), 0);
    fs::remove_dir_all(at("copy")).unwrap();

    fixture.workspace.remove_halves();
    assert!(own.exists() && outside.exists());
    fs::remove_file(own).unwrap();
    assert_eq!(fixture.top_names(), [".git", "d"]);
    let mut left: Vec<_> = fs::read_dir(at("d")).unwrap().flatten().collect();
    left.sort_by_key(fs::DirEntry::file_name);
    let left: Vec<_> = left.iter().map(fs::DirEntry::file_name).collect();
    assert_eq!(left, ["deep", "file", "out"]);
    assert_eq!(fs::read_dir(at("d/deep")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at(".git")).unwrap().count(), 1);
}
