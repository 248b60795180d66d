//! Files of a session through the registry: the gate, the paths, and what a name may be.

use cove_core::error::{Error, ErrorCode};
use cove_core::files::{Encoding, FileKind, NewEntry, NewPlace};
use cove_core::session::SessionId;
use cove_testbed::TestImage;

use crate::support::{App, shared_registry};

pub(crate) async fn write(
    app: &App,
    id: SessionId,
    path: &str,
    content: &str,
    revision: Option<&str>,
) -> Result<String, Error> {
    let (content, revision) = (content.to_owned(), revision.map(str::to_owned));
    app.session(id)
        .await
        .write_file(path, content, Encoding::Utf8, revision)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_refused_unless_the_session_is_ready() {
    let Some(app) = App::shared() else { return };
    let check = async |id, state: &'static str| {
        let refused = app.sessions.ready(id).await.err();
        assert!(
            matches!(refused, Some(Error::SessionNotReady(found)) if found == state),
            "{refused:?}"
        );
    };
    let id = app.create(None);
    check(id, "provisioning").await;
    crate::support::check_ready(&app.heard.run(id, 1).await);
    app.sessions.stop(id).await.unwrap();
    check(id, "stopped").await;
    let unknown = app.sessions.ready(SessionId::random()).await.err();
    assert!(
        matches!(unknown, Some(Error::SessionNotFound(_))),
        "{unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_and_a_change_in_between_is_a_conflict() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let path = "/workspace/file.txt";
    let first = write(&app, id, path, "one", None).await.unwrap();
    let read = app.session(id).await.read_file(path).await.unwrap();
    assert_eq!(
        (&*read.content, read.encoding, read.size),
        ("one", Encoding::Utf8, 3)
    );
    assert_eq!(read.revision, first);
    let second = write(&app, id, path, "two", Some(&first)).await.unwrap();
    assert_ne!(second, first);

    app.sh(id, "echo three > /workspace/file.txt");
    let conflict = write(&app, id, path, "four", Some(&second)).await;
    assert!(
        matches!(conflict, Err(Error::Conflict { .. })),
        "{conflict:?}"
    );
    assert_eq!(app.sh(id, "cat /workspace/file.txt"), "three");

    let bytes = "AP8A/w==".to_owned();
    app.session(id)
        .await
        .write_file("/workspace/bin", bytes.clone(), Encoding::Base64, None)
        .await
        .unwrap();
    let read = app
        .session(id)
        .await
        .read_file("/workspace/bin")
        .await
        .unwrap();
    assert_eq!((read.content, read.encoding), (bytes, Encoding::Base64));
    let missing = app.session(id).await.read_file("/workspace/none").await;
    assert!(
        matches!(missing, Err(Error::FileNotFound(_))),
        "{missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leaves_the_workspace() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "cd /workspace && ln -s /etc/passwd passwd && ln -s / root && ln -s ../etc up && mkdir d && ln -s ../../etc d/up");
    for path in [
        "/etc/passwd",
        "/workspace/../etc/passwd",
        "/workspace/d/../../etc/passwd",
        "/workspacex/a",
        "relative",
        "",
        "/workspace/passwd",
        "/workspace/root/etc/passwd",
        "/workspace/up/passwd",
        "/workspace/d/up/passwd",
    ] {
        let read = app.session(id).await.read_file(path).await;
        assert!(
            matches!(read, Err(Error::PathOutsideWorkspace(_))),
            "{path}: {read:?}"
        );
        let written = write(&app, id, path, "mine", None).await;
        assert!(
            matches!(written, Err(Error::PathOutsideWorkspace(_))),
            "{path}: {written:?}"
        );
    }
    let listed = app.session(id).await.list_dir("/workspace/root").await;
    assert!(
        matches!(listed, Err(Error::PathOutsideWorkspace(_))),
        "{listed:?}"
    );
    assert!(app.sh(id, "cat /etc/passwd").contains("root:"));
    let entries = app
        .session(id)
        .await
        .list_dir("/workspace")
        .await
        .unwrap()
        .entries;
    let passwd = entries.iter().find(|entry| entry.name == "passwd").unwrap();
    assert_eq!((passwd.kind, passwd.target_kind), (FileKind::Symlink, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_any_bytes_and_opens_by_what_the_list_gave() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let names = [
        r"with space",
        r#"quote\"\047"#,
        r"new\nline",
        r"\360\237\246\200",
        r"-dash",
        r"\377\376bytes",
        r"half\303",
        r"..dots",
    ];
    for (index, name) in names.iter().enumerate() {
        app.sh(
            id,
            &format!("cd /workspace && printf {index} > \"./$(printf '{name}')\""),
        );
    }
    // The names are root's so far, and the session's user is not root.
    app.sh(id, "chown -R $(stat -c %u /workspace) /workspace");
    let entries = app
        .session(id)
        .await
        .list_dir("/workspace")
        .await
        .unwrap()
        .entries;
    assert_eq!(entries.len(), names.len(), "{entries:#?}");
    let mut found = Vec::new();
    for entry in &entries {
        let read = app.session(id).await.read_file(&entry.path).await.unwrap();
        found.push(read.content.parse::<usize>().unwrap());
        write(
            &app,
            id,
            &entry.path,
            &format!("{}!", read.content),
            Some(&read.revision),
        )
        .await
        .unwrap();
    }
    found.sort_unstable();
    assert_eq!(found, (0..names.len()).collect::<Vec<_>>());
    // The writes met the same files: there are no others.
    let again = app
        .session(id)
        .await
        .list_dir("/workspace")
        .await
        .unwrap()
        .entries;
    assert_eq!(again.len(), names.len());
    assert!(again.iter().all(|entry| entry.size == 2), "{again:#?}");
    assert_eq!(
        app.sh(id, r#"cat "/workspace/$(printf '\377\376bytes')""#),
        "5!"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_may_be_read_and_not_entered_shows_its_names() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::NonRoot);
    let id = app.ready(Some(&image)).await;
    app.sh(
        id,
        "mkdir -p /workspace/locked/folder && echo x > /workspace/locked/file && \
         chown -R 999 /workspace/locked && chmod 744 /workspace/locked",
    );
    let listed = app
        .session(id)
        .await
        .list_dir("/workspace/locked")
        .await
        .unwrap();
    let rows: Vec<_> = listed
        .entries
        .iter()
        .map(|entry| (&*entry.name, entry.kind))
        .collect();
    assert_eq!(rows, [("folder", FileKind::Dir), ("file", FileKind::File)]);
    let read = app
        .session(id)
        .await
        .read_file("/workspace/locked/file")
        .await;
    assert_eq!(read.unwrap_err().code(), ErrorCode::FileNotUsable);
}

pub(crate) fn named(directory: &str, name: &str) -> NewPlace {
    let (directory, name) = (directory.to_owned(), name.to_owned());
    NewPlace::Named { directory, name }
}

/// The names in a folder of a session, in the order of their bytes, as its own shell sees them.
fn really_in(app: &App, id: SessionId, folder: &str) -> Vec<String> {
    let names = app.sh(id, &format!("ls -A1 {folder}"));
    names.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_made_moved_copied_deleted_and_put_back() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let session = app.session(id).await;
    let folder = session.create_entry(named("/workspace", "src"), NewEntry::Dir);
    assert_eq!(folder.await.unwrap(), "/workspace/src");
    let file = session.create_entry(named("/workspace", "a file.txt"), NewEntry::File);
    let file = file.await.unwrap();
    write(&app, id, &file, "content", None).await.unwrap();

    let again = session.create_entry(named("/workspace", "src"), NewEntry::File);
    let error = again.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    assert_eq!(
        error.to_string(),
        "there is something at `/workspace/src` already"
    );
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        let refused = session.create_entry(named("/workspace", name), NewEntry::File);
        let code = refused.await.unwrap_err().code();
        assert_eq!(code, ErrorCode::ValidationError, "{name:?}");
    }

    let moved = session.move_entry(&file, NewPlace::In("/workspace/src".to_owned()));
    let moved = moved.await.unwrap();
    assert_eq!(moved, "/workspace/src/a file.txt");
    let itself = session.copy_entry(&moved, NewPlace::In("/workspace/src".to_owned()), true);
    assert_eq!(itself.await.unwrap(), "/workspace/src/a file copy.txt");
    let taken = session.move_entry(&moved, named("/workspace/src", "a file copy.txt"));
    assert_eq!(taken.await.unwrap_err().code(), ErrorCode::Conflict);
    let copy = session.copy_entry("/workspace/src", named("/workspace", "lib"), false);
    assert_eq!(copy.await.unwrap(), "/workspace/lib");
    assert_eq!(app.sh(id, "cat '/workspace/lib/a file.txt'"), "content");
    for to in ["/workspace/src", "/workspace/src/inner"] {
        let place = named(to, "src");
        let into_itself = session.move_entry("/workspace/src", place).await;
        assert_eq!(into_itself.unwrap_err().code(), ErrorCode::ValidationError);
    }

    let owner = app.sh(id, "stat -c %u /workspace/lib /workspace/src /workspace");
    let owners: Vec<&str> = owner.lines().collect();
    assert!(owners.iter().all(|uid| *uid == owners[0]), "{owners:?}");

    let paths = ["/workspace/src", "/workspace/lib/a file.txt"].map(str::to_owned);
    let trash = session.delete_entries(paths.to_vec()).await.unwrap();
    let listed = session.list_dir("/workspace").await.unwrap();
    assert_eq!(listed.entries.len(), 1, "{listed:?}");
    assert_eq!(really_in(&app, id, "/workspace"), [".cove-trash", "lib"]);
    app.sh(id, "mkdir /workspace/src");
    let refused = session.restore_entries(trash.clone()).await;
    let error = refused.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
    assert_eq!(
        error.to_string(),
        "there is something at `/workspace/src` again"
    );
    app.sh(id, "rmdir /workspace/src");
    session.restore_entries(trash.clone()).await.unwrap();
    let back = [".cove-trash", "lib", "src"];
    assert_eq!(really_in(&app, id, "/workspace"), back);
    assert_eq!(app.sh(id, "cat '/workspace/src/a file.txt'"), "content");
    let once = session.restore_entries(trash).await;
    assert!(matches!(once, Err(Error::NotInTrash)), "{once:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_counts_for_the_session_and_goes_into_no_copy_of_it() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace && head -c 3000000 /dev/zero > big && echo kept > kept && \
         chown $(stat -c %u .) big kept",
    );
    let before = app.sessions.usage(id).await.unwrap().size_bytes;
    let deleted = app
        .session(id)
        .await
        .delete_entries(vec!["/workspace/big".to_owned()])
        .await;
    deleted.unwrap();
    let after = app.sessions.usage(id).await.unwrap().size_bytes;
    assert!(
        after >= before && before >= Some(3_000_000),
        "{before:?} {after:?}"
    );
    let copy = app.sessions.duplicate(id, None).await.unwrap();
    app.adopt(copy);
    crate::support::check_ready(&app.heard.run(copy, 1).await);
    assert_eq!(really_in(&app, copy, "/workspace"), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_on_a_volume_of_its_own_is_refused_and_stays() {
    let Some(app) = App::shared() else { return };
    let image = shared_registry().reference(TestImage::InnerVolume);
    let id = app.ready(Some(&image)).await;
    let session = app.session(id).await;
    let inner = "/workspace/node_modules";
    let made = session.create_entry(named(inner, "mine"), NewEntry::File);
    let path = made.await.unwrap();
    let error = session.delete_entries(vec![path.clone()]).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FileNotUsable);
    assert!(error.to_string().contains("volume of its own"), "{error}");
    // Where the volume itself is, the kernel refuses in words of its own.
    let place = session.delete_entries(vec![inner.to_owned()]).await;
    assert_eq!(place.unwrap_err().code(), ErrorCode::FileNotUsable);
    let moved = session.move_entry(&path, NewPlace::In("/workspace".to_owned()));
    let error = moved.await.unwrap_err();
    assert!(error.to_string().contains("different volumes"), "{error}");
    // A copy goes from one to the other.
    let copied = session.copy_entry(&path, NewPlace::In("/workspace".to_owned()), false);
    assert_eq!(copied.await.unwrap(), "/workspace/mine");
    let renamed = session.move_entry(&path, named(inner, "yours"));
    renamed.await.unwrap();
    assert!(really_in(&app, id, inner).contains(&"yours".to_owned()));
}
