//! What real programs write is read, however it is cut; and what is written is read by them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// What is read of a member, with its content in one piece.
type Tree = BTreeMap<Vec<u8>, (Kind, u32, i64, Vec<u8>)>;

/// Reads an archive that comes in pieces of these lengths, over and over.
fn read(archive: &[u8], lengths: &[usize]) -> Result<Vec<(Member, Vec<u8>)>, ArchiveError> {
    let mut reader = Reader::default();
    let mut members: Vec<(Member, Vec<u8>)> = Vec::new();
    let mut rest = archive;
    for length in lengths.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*length));
        rest = behind;
        reader.push(piece);
        while let Some(event) = reader.next()? {
            match event {
                Event::Total(_) | Event::Void => panic!("no archive says that"),
                Event::Member(member) => members.push((member, Vec::new())),
                Event::Data { offset, bytes } => {
                    let content = &mut members.last_mut().unwrap().1;
                    let offset = usize::try_from(offset).unwrap();
                    content.resize(content.len().max(offset + bytes.len()), 0);
                    content[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    reader.finish()?;
    for (member, content) in &mut members {
        content.resize(usize::try_from(member.kind.size()).unwrap(), 0);
    }
    Ok(members)
}

/// Leaves out what GNU's format has no room for.
fn in_whole_seconds(mut members: Vec<(Member, Vec<u8>)>) -> Vec<(Member, Vec<u8>)> {
    for (member, _) in &mut members {
        member.modified.nanoseconds = 0;
    }
    members
}

fn tree_of(members: Vec<(Member, Vec<u8>)>) -> Tree {
    let entries = members.into_iter().map(|(member, content)| {
        // Where the holes are is a matter of the program; what can be read is not.
        let kind = match member.kind {
            Kind::File { size, .. } => Kind::File {
                size,
                extents: None,
            },
            kind => kind,
        };
        (
            member.path,
            (kind, member.mode, member.modified.seconds, content),
        )
    });
    entries.collect()
}

/// Writes what was read.
fn written(members: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (member, content) in members {
        archive.extend(write::head(member));
        let whole = [Extent {
            offset: 0,
            length: content.len() as u64,
        }];
        let extents = match &member.kind {
            Kind::File {
                extents: Some(extents),
                ..
            } => extents.as_slice(),
            _ => &whole,
        };
        for extent in extents {
            let begin = usize::try_from(extent.offset).unwrap();
            let end = begin + usize::try_from(extent.length).unwrap();
            archive.extend_from_slice(&content[begin..end]);
        }
        let length = archive.len() + write::padding(member.kind.stored());
        archive.resize(length, 0);
    }
    archive.resize(archive.len() + write::END, 0);
    archive
}

/// Looks at a folder as an archive of it should say.
fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            let facts = path.symlink_metadata().unwrap();
            let (kind, content) = if facts.is_dir() {
                folders.push(path.clone());
                (Kind::Directory, Vec::new())
            } else if facts.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                (
                    Kind::Symlink(target.as_os_str().as_bytes().to_vec()),
                    Vec::new(),
                )
            } else {
                if facts.nlink() > 1 {
                    names.entry(facts.ino()).or_insert_with(|| name.to_vec());
                }
                let size = facts.len();
                (
                    Kind::File {
                        size,
                        extents: None,
                    },
                    fs::read(&path).unwrap(),
                )
            };
            let mode = facts.permissions().mode() & 0o7777;
            tree.insert(name.to_vec(), (kind, mode, facts.mtime(), content));
        }
    }
    tree
}

/// Makes a folder with everything in it that formats differ in.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty"), "").unwrap();
    fs::write(at("a block"), vec![b'x'; 512]).unwrap();
    fs::write(at("odd"), vec![b'y'; 1300]).unwrap();
    // What looks like the end of an archive is content.
    fs::write(at("zeros"), vec![0; 4096]).unwrap();
    fs::create_dir_all(at("d/e")).unwrap();
    let long = "l".repeat(90);
    fs::write(at(&format!("d/e/{long}")), "long").unwrap();
    symlink("/etc/passwd", at("d/absolute")).unwrap();
    symlink("../..", at("d/up")).unwrap();
    fs::set_permissions(at("odd"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("d/e"), fs::Permissions::from_mode(0o500)).unwrap();
    folder
}

fn add_long_names(folder: &Path) {
    let deep = ["n".repeat(200), "m".repeat(200), "o".repeat(200)].join("/");
    fs::create_dir_all(folder.join(&deep)).unwrap();
    fs::write(folder.join(&deep).join("deep"), "deep").unwrap();
    symlink("t".repeat(300), folder.join("long link")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"not \xff text\n");
    fs::write(folder.join(odd), "odd name").unwrap();
}

fn add_sparse_files(folder: &Path) {
    for (name, pieces, size) in [
        ("holes", 40, 9 << 20),
        ("one", 1, 1 << 20),
        ("none", 0, 1 << 20),
    ] {
        let mut file = fs::File::create(folder.join(name)).unwrap();
        for piece in 0..pieces {
            file.seek(SeekFrom::Start(piece * 200_000 + 8192)).unwrap();
            file.write_all(format!("piece {piece}").as_bytes()).unwrap();
        }
        file.set_len(size).unwrap();
    }
}

/// Packs a folder with the system's tar.
fn pack(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(arguments)
        .args(["-cf", "-", "-C"])
        .arg(folder)
        .arg(".")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

#[track_caller]
fn check(folder: &Path, arguments: &[&str]) {
    let archive = pack(folder, arguments);
    for lengths in [&[usize::MAX][..], &[1], &[511, 1, 4096, 3]] {
        let mut read = tree_of(read(&archive, lengths).unwrap());
        read.remove(&Vec::new()[..]).unwrap();
        let looked = look(folder);
        let names = |tree: &Tree| tree.keys().map(|name| shown(name)).collect::<Vec<_>>();
        assert_eq!(names(&read), names(&looked), "{arguments:?}");
        for (name, expected) in looked {
            assert!(read[&name] == expected, "{arguments:?}: {}", shown(&name));
        }
    }
    // What is written of it is the same for others.
    let members = in_whole_seconds(read(&archive, &[usize::MAX]).unwrap());
    let again = written(&members);
    assert!(read(&again, &[777]).unwrap() == members, "{arguments:?}");
    let unpacked = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-xpf", "-", "-C"])
        .arg(unpacked.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&again).unwrap();
    assert!(tar.wait().unwrap().success(), "{arguments:?}");
    assert!(look(unpacked.path()) == look(folder), "{arguments:?}");
}

#[test]
fn what_tar_packs_in_any_format_is_read_and_written() {
    let folder = folder();
    for format in ["--format=v7", "--format=ustar"] {
        check(folder.path(), &[format]);
    }
    add_long_names(folder.path());
    for format in ["--format=gnu", "--format=oldgnu", "--format=posix"] {
        check(folder.path(), &[format]);
    }
    add_sparse_files(folder.path());
    check(folder.path(), &["--format=gnu", "--sparse"]);
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        check(folder.path(), &["--format=posix", "--sparse", &version]);
    }
}

#[test]
fn other_names_of_a_file_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/a"), "both").unwrap();
    fs::hard_link(folder.path().join("d/a"), folder.path().join("d/b")).unwrap();
    for format in ["--format=gnu", "--format=posix"] {
        let members = read(&pack(folder.path(), &[format]), &[usize::MAX]).unwrap();
        let members = in_whole_seconds(members);
        let links = members.iter().filter_map(|(member, _)| match &member.kind {
            Kind::HardLink(target) => Some((member.path.as_slice(), target.as_slice())),
            _ => None,
        });
        let links: Vec<_> = links.collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"d/b", b"d/a"), (b"d/a", b"d/b")];
        assert!(
            links.len() == 1 && expected.contains(&links[0]),
            "{links:?}"
        );
        assert!(read(&written(&members), &[100]).unwrap() == members);
    }
}

#[test]
fn sizes_and_times_of_any_length_are_read_and_written() {
    for (size, seconds) in [
        (8 << 30, 0),
        (9 << 40, -1),
        ((8 << 30) - 1, 1 << 40),
        (0, -(1 << 40)),
    ] {
        let member = Member {
            path: b"big".to_vec(),
            kind: Kind::File {
                size,
                extents: None,
            },
            mode: 0o644,
            uid: 3_000_000,
            gid: u32::MAX,
            modified: Modified {
                seconds,
                nanoseconds: 0,
            },
        };
        let head = write::head(&member);
        let mut reader = Reader::default();
        reader.push(&head);
        assert_eq!(reader.next(), Ok(Some(Event::Member(member))));
        let mut other = tar::Archive::new(&*head);
        let entry = other.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().size().unwrap(), size);
    }
}

#[test]
fn what_leads_out_is_refused_by_its_name() {
    let named = |path: &[u8], kind: u8, target: &[u8]| {
        let member = Member {
            path: path.to_vec(),
            kind: match kind {
                b'1' => Kind::HardLink(target.to_vec()),
                b'3' => Kind::Device,
                _ => Kind::Symlink(target.to_vec()),
            },
            mode: 0o777,
            uid: 0,
            gid: 0,
            modified: Modified::default(),
        };
        let mut reader = Reader::default();
        reader.push(&write::head(&member));
        reader.next()
    };
    for path in [&b"../up"[..], b"a/../../b", b"..", b"/.."] {
        assert_eq!(
            named(path, b'2', b"x"),
            Err(ArchiveError::Outside(path.to_vec()))
        );
    }
    assert_eq!(
        named(b"hard", b'1', b"../etc/passwd"),
        Err(ArchiveError::Outside(b"../etc/passwd".to_vec()))
    );
    for (path, cleaned) in [(&b"/etc/x"[..], &b"etc/x"[..]), (b"./a//b/./c", b"a/b/c")] {
        let Ok(Some(Event::Member(member))) = named(path, b'2', b"/etc") else {
            panic!("{}", shown(path));
        };
        assert_eq!(member.path, cleaned);
    }
    let device = named(b"disk", b'3', b"");
    assert!(matches!(
        device,
        Ok(Some(Event::Member(Member {
            kind: Kind::Device,
            ..
        })))
    ));
}

#[test]
fn what_is_no_archive_says_so() {
    assert_eq!(read(b"", &[1]), Err(ArchiveError::Empty));
    for no_archive in [&b"PK\x03\x04"[..], &[b'x'; 2000], &[1; 512]] {
        assert_eq!(read(no_archive, &[600]), Err(ArchiveError::NotAnArchive));
    }
    assert_eq!(read(&[0; 10_240], &[1000]), Ok(Vec::new()));
}

fn small() -> Vec<u8> {
    let folder = folder();
    add_long_names(folder.path());
    add_sparse_files(folder.path());
    pack(folder.path(), &["--format=posix", "--sparse"])
}

/// Where the end mark begins.
fn length_of(archive: &[u8]) -> usize {
    let mut reader = tar::Archive::new(archive);
    let ends = reader.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let stored = std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
        usize::try_from((entry.raw_file_position() + stored).next_multiple_of(512)).unwrap()
    });
    ends.max().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_archive_that_breaks_off_anywhere_is_never_whole(cut in any::<prop::sample::Index>(), pieces in prop::collection::vec(1_usize..5000, 1..5)) {
        thread_local! {
            static WHOLE: (Vec<u8>, usize) = {
                let archive = small();
                let length = length_of(&archive);
                (archive, length)
            };
        }
        WHOLE.with(|(archive, length)| {
            let cut = cut.index(*length);
            prop_assert!(read(&archive[..cut], &pieces).is_err());
            prop_assert!(read(archive, &pieces).is_ok());
            // Damage is never more than an error, and never without an end.
            let mut damaged = archive.clone();
            for byte in damaged.iter_mut().skip(cut).take(16) {
                *byte = !*byte;
            }
            let _ = read(&damaged, &pieces);
            Ok(())
        })?;
    }

    #[test]
    fn what_the_tar_crate_packs_is_read(sizes in prop::collection::vec(0_usize..3000, 0..12), pieces in prop::collection::vec(1_usize..2000, 1..5)) {
        let mut builder = tar::Builder::new(Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            let name = format!("x{}/{number}", "n".repeat(*size % 300));
            builder.append_data(&mut header, name, std::io::repeat(b'c').take(*size as u64)).unwrap();
        }
        let members = read(&builder.into_inner().unwrap(), &pieces).unwrap();
        let found: Vec<_> = members.iter().map(|(_, content)| content.len()).collect();
        prop_assert_eq!(found, sizes);
        prop_assert!(members.iter().all(|(_, content)| content.iter().all(|byte| *byte == b'c')));
    }
}
