//! Names that are hard to bear, through everything that can be done with a name: whatever bytes they are, they stay so.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cove_agent::path::{WorkspacePath, encode};
use cove_core::event::ExportOutcome;
use cove_core::files::{NewEntry, NewPlace};
use cove_core::session::SessionId;
use cove_core::sessions::Destination;

use crate::crossing::export;
use crate::files::{named, write};
use crate::live::{expect, heard, watch};
use crate::searching;
use crate::support::App;
use crate::transferring::{check_done, download, upload};

/// What programs, pages, shells, paths, patterns and protocols take for something else.
const TEXTS: [&str; 36] = [
    "constructor",
    "__proto__",
    "x.constructor",
    "hasOwnProperty",
    "invoice\u{202e}gpj.exe",
    "a\u{3164}b (Hangul filler)",
    "\u{3164}",
    "\u{115f}",
    "a\u{e0041}b (tag)",
    "a\u{180e}b",
    "new\nline",
    "\n",
    "carriage\rreturn",
    "tab\tbetween",
    "esc\u{1b}]0;t\u{7}",
    "bell\u{7f}",
    "<img src=x onerror=alert(1)>",
    "`code` $(touch x) ${HOME}",
    "'single' \"double\"",
    "\u{fdd0}",
    "\u{fdd0}2f",
    "-rf",
    "--",
    "*",
    "[a-z]?",
    "{a,b}",
    "!not",
    "# no comment",
    "back\\slash",
    "%2e%2e%2f",
    "...",
    " space ",
    "~",
    ".gitignore",
    "caf\u{e9}",
    "cafe\u{301}",
];

/// Names that are no text.
const BYTES: [&[u8]; 3] = [b"bad\xff\xfe", b"\xfd\xd0 raw", b"half\xc3"];

fn names() -> Vec<Vec<u8>> {
    let long = [
        "x".repeat(255),
        format!("z{}", "\u{301}".repeat(120)),
        "\u{1f980}".repeat(63),
    ];
    let texts = TEXTS.iter().map(|text| (*text).to_owned()).chain(long);
    let bytes = BYTES.iter().map(|name| name.to_vec());
    texts.map(String::into_bytes).chain(bytes).collect()
}

/// Returns the paths below a folder of the session, as its own programs see them.
fn really_below(app: &App, id: SessionId, folder: &str) -> BTreeSet<Vec<u8>> {
    let script = format!("cd {folder} && find . -mindepth 1 -print0 | base64 -w 0");
    let paths = STANDARD.decode(app.sh(id, &script)).unwrap();
    let paths = paths
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty());
    paths.map(|path| path[b"./".len()..].to_vec()).collect()
}

fn below_here(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap();
            found.insert(below.as_os_str().as_bytes().to_vec());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// Returns the names in a folder of the session, as Cove sees them.
async fn names_in(app: &App, id: SessionId, folder: &str) -> Vec<Vec<u8>> {
    let listed = app.session(id).await.list_dir(folder).await.unwrap();
    let paths = listed
        .entries
        .iter()
        .map(|entry| WorkspacePath::parse(&entry.path));
    paths.map(|path| path.unwrap().name().to_vec()).collect()
}

/// Returns what is below a folder in which there is a folder of this name with a file of this name.
fn twice_below(folder: &str, name: &[u8]) -> [Vec<u8>; 2] {
    let in_it = [folder.as_bytes(), name].concat();
    let twice = [&*in_it, b"/", name].concat();
    [in_it, twice]
}

/// Does everything with a name that can be done in a folder of its own.
async fn check(app: &App, id: SessionId, number: usize, name: &[u8]) {
    let session = app.session(id).await;
    let top = format!("/workspace/n{number}");
    let in_top = async || names_in(app, id, &top).await;
    session
        .create_entry(named("/workspace", &format!("n{number}")), NewEntry::Dir)
        .await
        .unwrap();

    // New, as it is typed where it can be.
    let place = match std::str::from_utf8(name) {
        Ok(text) => named(&top, text),
        Err(_) => NewPlace::At(format!("{top}/{}", encode(name))),
    };
    let path = session.create_entry(place, NewEntry::File).await.unwrap();
    assert_eq!(in_top().await, [name]);
    let listed = session.list_dir(&top).await.unwrap();
    let paths: Vec<_> = listed.entries.iter().map(|entry| &*entry.path).collect();
    assert_eq!(paths, [&*path]);

    // Saved.
    let content = format!("needle{number}.");
    let first = write(app, id, &path, "first", None).await.unwrap();
    write(app, id, &path, &content, Some(&first)).await.unwrap();
    let read = session.read_file(&path).await.unwrap();
    assert_eq!(read.content, content);

    // Renamed and back, duplicated, and moved into a folder of the same name.
    let plain = session.move_entry(&path, named(&top, "plain")).await;
    let plain = plain.unwrap();
    assert_eq!(in_top().await, [b"plain"]);
    let back = session.move_entry(&plain, NewPlace::At(path.clone()));
    assert_eq!(back.await.unwrap(), path);
    assert_eq!(in_top().await, [name]);
    let copy = session.copy_entry(&path, NewPlace::In(top.clone()), true);
    let copy = copy.await.unwrap();
    assert_eq!(in_top().await.len(), 2);
    let read = session.read_file(&copy).await.unwrap();
    assert_eq!(read.content, content);
    session.delete_entries(vec![copy]).await.unwrap();
    assert_eq!(in_top().await, [name]);
    let aside = named("/workspace", &format!("aside{number}"));
    let aside = session.move_entry(&path, aside).await.unwrap();
    let folder = session.create_entry(NewPlace::At(path.clone()), NewEntry::Dir);
    let folder = folder.await.unwrap();
    let inner = NewPlace::At(format!("{folder}/{}", encode(name)));
    let file = session.move_entry(&aside, inner).await.unwrap();
    assert_eq!(in_top().await, [name]);
    assert_eq!(names_in(app, id, &folder).await, [name]);

    // Into the trash and back.
    let trash = session.delete_entries(vec![folder.clone()]).await.unwrap();
    assert!(in_top().await.is_empty());
    session.restore_entries(trash).await.unwrap();
    assert_eq!(in_top().await, [name]);
    assert_eq!(names_in(app, id, &folder).await, [name]);

    // Found and searched.
    let query = searching::name(&format!("n{number}/"));
    let found = session.find_files(&query).await.unwrap();
    assert!(
        found.entries.iter().any(|entry| entry.path == file),
        "{found:?}"
    );
    let (_, news) = searching::begin(app, id, searching::text(&content))
        .await
        .unwrap();
    let (lines, end) = searching::hear(news).await;
    assert_eq!(lines, [format!("{file}:1")], "{end:?}");

    // Watched.
    watch(app, id, &[&folder]).await;
    let from = heard(app);
    write(app, id, &format!("{folder}/new"), "", None)
        .await
        .unwrap();
    expect(app, from, &[&folder]).await;
    let new = vec![format!("{folder}/new")];
    session.delete_entries(new).await.unwrap();

    // Down and up.
    let here = tempfile::tempdir().unwrap();
    let to = Destination::Folder(here.path().to_owned());
    check_done(&download(app, id, &folder, to).await);
    assert_eq!(below_here(here.path()), twice_below("", name).into());
    let downloaded = here.path().join(std::ffi::OsStr::from_bytes(name));
    let inner = downloaded.join(std::ffi::OsStr::from_bytes(name));
    assert_eq!(fs::read_to_string(inner).unwrap(), content);
    let again = format!("/workspace/u{number}");
    session
        .create_entry(NewPlace::At(again.clone()), NewEntry::Dir)
        .await
        .unwrap();
    check_done(&upload(app, id, &again, &[downloaded]).await);
    let read = session.read_file(&file.replacen(&top, &again, 1)).await;
    assert_eq!(read.unwrap().content, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hardest_names_go_through_everything_unharmed() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let names = names();
    for (number, name) in names.iter().enumerate() {
        check(&app, id, number, name).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("files.tar");
    let (outcome, error) = export(&app, id, &archive).await;
    assert_eq!(outcome, ExportOutcome::Done, "{error:?}");
    let mut exported = tar::Archive::new(fs::File::open(&archive).unwrap());
    let exported = exported.entries().unwrap().map(|member| {
        let path = member.unwrap().path().unwrap().into_owned();
        let mut path = path.into_os_string().into_vec();
        if path.ends_with(b"/") {
            path.pop();
        }
        path.strip_prefix(b"./").map(<[u8]>::to_vec).unwrap_or(path)
    });
    let mut exported: BTreeSet<Vec<u8>> = exported.collect();
    exported.retain(|path| !matches!(&**path, b"" | b"."));
    let mut there = really_below(&app, id, "/workspace");
    there.retain(|path| !path.starts_with(b".cove-trash"));
    let made = names.iter().enumerate().flat_map(|(number, name)| {
        let tops = [format!("n{number}/"), format!("u{number}/")];
        let below = tops.into_iter().flat_map(|top| {
            let [inner, twice] = twice_below(&top, name);
            [top.trim_end_matches('/').into(), inner, twice]
        });
        below.collect::<Vec<_>>()
    });
    assert_eq!(there, made.collect());
    assert_eq!(exported, there);
    app.sessions.shutdown().await;
}
