//! What is packed comes out the same, and nothing that is told leads outside.

use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::pack::Packer;
use crate::tree::PIECE;

fn pack(folder: &Path) -> Vec<(Piece, Vec<u8>)> {
    let mut told = Vec::new();
    Packer::new(&mut told).tell_all(folder, false).unwrap();
    let mut decoder = Decoder::<Piece>::new();
    decoder.push(&told);
    let mut pieces = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap() {
        pieces.push((frame.header, frame.body));
    }
    assert!(decoder.is_between_frames());
    pieces
}

fn unpack_all(pieces: &[(Piece, Vec<u8>)], into: &Path, owners: Owners) -> Result<(), Failed> {
    let frames = pieces
        .iter()
        .flat_map(|(piece, body)| protocol::encode(piece, body).unwrap());
    let frames: Vec<u8> = frames.collect();
    Unpacker::new(File::open(into).unwrap().into(), owners)?.take_all(&*frames)
}

/// Tests run as root too, and then owners come along.
fn owners() -> Owners {
    if rustix::process::geteuid().is_root() {
        Owners::Keep
    } else {
        Owners::One(
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }
}

/// What there is but for how much room it takes.
fn without_total(pieces: Vec<(Piece, Vec<u8>)>) -> Vec<(Piece, Vec<u8>)> {
    let told = pieces.into_iter();
    told.filter(|(piece, _)| !matches!(piece, Piece::Total(_)))
        .collect()
}

/// Makes a chain of directories that no path reaches, with a file at its end.
fn dig(folder: &Path, depth: usize) {
    pack::allow_depth();
    let mut at: OwnedFd = File::open(folder).unwrap().into();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = open_directory(&at, b"d").unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let file = openat(&at, "deep", flags, Mode::from_raw_mode(0o644)).unwrap();
    File::from(file).write_all(b"at the end").unwrap();
}

fn fill(folder: &Path) {
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/text"), "hello").unwrap();
    fs::write(at("a/empty"), "").unwrap();
    fs::write(at("big"), vec![7; 3 * PIECE + 5]).unwrap();
    fs::write(
        folder.join(std::ffi::OsStr::from_bytes(b"odd \xff\n")),
        "odd",
    )
    .unwrap();
    fs::hard_link(at("a/text"), at("a/b/again")).unwrap();
    symlink("/etc", at("out")).unwrap();
    mknodat(
        File::open(folder).unwrap(),
        "pipe",
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    sparse.write_all(b"begin").unwrap();
    sparse.seek(SeekFrom::Start(5 << 30)).unwrap();
    sparse.write_all(b"end").unwrap();
    sparse.set_len(1 << 40).unwrap();
    fs::set_permissions(at("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 123_456_789);
    for name in ["a/text", "a/b", "a"] {
        File::open(at(name))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
}

#[test]
fn what_is_packed_comes_out_the_same() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    dig(from.path(), 2_200);
    let packed = pack(from.path());
    assert_eq!(packed.last().unwrap().0, Piece::End);
    unpack_all(&packed, to.path(), owners()).unwrap();
    let again = pack(to.path());
    let (packed, again) = (without_total(packed), without_total(again));
    for (before, after) in packed.iter().zip(&again) {
        assert!(before == after, "{:?} became {:?}", before.0, after.0);
    }
    assert_eq!(packed.len(), again.len());
    let sparse = fs::metadata(to.path().join("sparse")).unwrap();
    assert_eq!(sparse.len(), 1 << 40);
    assert!(sparse.blocks() < 100, "holes stay holes");
    for folder in [&from, &to] {
        empty(&File::open(folder.path()).unwrap().into()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_there_is_counted() {
    let from = tempfile::tempdir().unwrap();
    fill(from.path());
    let (Piece::Total(total), _) = &pack(from.path())[0] else {
        panic!("it begins with the count");
    };
    let expected = 5 + 3 * PIECE as u64 + 5 + 3 + (1 << 40);
    assert_eq!((total.bytes, total.is_all), (expected, true));
    assert!(
        total.stored < 2 << 20 && total.content < 2 << 20,
        "{total:?}"
    );
    assert!(total.newest_ms > Some(981_173_106_123));
}

#[test]
fn what_tells_no_end_makes_no_whole() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), "hello").unwrap();
    let packed = pack(from.path());
    for count in 0..packed.len() {
        let failed = unpack_all(&packed[..count], to.path(), owners()).unwrap_err();
        assert_eq!(failed.why, Why::Invalid, "{failed:?}");
    }
    unpack_all(&packed, to.path(), owners()).unwrap();
}

#[test]
fn what_leads_outside_is_refused_and_nothing_is_made_there() {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("inside"), top.path().join("outside"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, inside.join("there")).unwrap();
    let facts = Facts::default();
    let (name, target) = (|name: &str| name.to_owned(), outside.display().to_string());
    let file = |text: &str| {
        let (name, size) = (text.to_owned(), 0);
        let extents = None;
        Piece::File {
            name,
            facts,
            size,
            extents,
        }
    };
    let enter = |text: &str| Piece::Enter {
        name: text.to_owned(),
        facts: Some(facts),
    };
    let link = Piece::Symlink {
        name: name("x"),
        facts,
        target,
    };
    let hard = |path: &[&str]| Piece::HardLink {
        name: "hard".to_owned(),
        path: path.iter().map(|name| (*name).to_owned()).collect(),
    };
    let cases = [
        vec![file("../up")],
        vec![file("..")],
        vec![file("a/b")],
        vec![file("/abs")],
        vec![enter("..")],
        vec![Piece::Leave],
        vec![link.clone(), enter("x"), file("made")],
        vec![enter("there"), file("made")],
        vec![hard(&["..", "outside", "secret"])],
        vec![link, hard(&["x", "secret"])],
        vec![hard(&["there", "secret"])],
        vec![hard(&[])],
        vec![file("f"), Piece::Content { offset: 0 }, Piece::End],
        vec![file("f"), enter("g")],
    ];
    for mut case in cases {
        case.push(Piece::End);
        let pieces: Vec<_> = case
            .into_iter()
            .map(|piece| (piece, b"x".to_vec()))
            .collect();
        let mine = Owners::One(0, 0);
        unpack_all(&pieces, &inside, mine).expect_err(&format!("{pieces:?}"));
        let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(left.len(), 1, "{pieces:?}");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2, "{pieces:?}");
    }
}

#[test]
fn what_comes_in_never_runs_as_somebody_else() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("run"), "").unwrap();
    let mode = fs::Permissions::from_mode(0o6755);
    fs::set_permissions(from.path().join("run"), mode).unwrap();
    unpack_all(&pack(from.path()), to.path(), owners()).unwrap();
    let mode = fs::metadata(to.path().join("run")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_file_that_changes_is_whole_or_named() {
    let from = tempfile::tempdir().unwrap();
    let log = from.path().join("log");
    fs::write(from.path().join("z"), "untouched").unwrap();
    let done = AtomicBool::new(false);
    let (mut whole, mut named) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 0_u8;
            while !done.load(Ordering::Relaxed) {
                count = count.wrapping_add(1);
                fs::write(&log, vec![count; 2 << 20]).unwrap();
                File::options()
                    .write(true)
                    .open(&log)
                    .unwrap()
                    .set_len(u64::from(count))
                    .unwrap();
            }
        });
        for _ in 0..5 {
            let to = tempfile::tempdir().unwrap();
            match unpack_all(&pack(from.path()), to.path(), owners()) {
                Ok(()) => {
                    let content = fs::read(to.path().join("log")).unwrap_or_default();
                    let is_one = content.windows(2).all(|pair| pair[0] == pair[1]);
                    assert!(is_one, "no mixture of two states");
                    let untouched = fs::read(to.path().join("z")).unwrap();
                    assert_eq!(untouched, b"untouched");
                    whole += 1;
                }
                Err(failed) => {
                    assert_eq!(failed.why, Why::Changed, "{failed:?}");
                    assert!(failed.message.contains("`log`"), "{failed:?}");
                    named += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(whole + named, 5);
}

#[test]
fn a_log_that_only_grows_is_taken_as_it_was() {
    let from = tempfile::tempdir().unwrap();
    let log = from.path().join("log");
    fs::write(&log, vec![b'l'; 4 << 20]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::options().append(true).open(&log).unwrap();
            while !done.load(Ordering::Relaxed) {
                log.write_all(b"l").unwrap();
            }
        });
        let packed = pack(from.path());
        done.store(true, Ordering::Relaxed);
        assert_eq!(packed.last().unwrap().0, Piece::End);
        assert!(!packed.iter().any(|(piece, _)| *piece == Piece::Void));
    });
}
