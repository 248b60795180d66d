//! Files of a session through the registry: the gate, the paths, and what a name may be.

use cove_core::error::{Error, ErrorCode};
use cove_core::files::{Encoding, FileKind};
use cove_core::session::SessionId;
use cove_testbed::TestImage;

use crate::support::{App, shared_registry};

async fn write(
    app: &App,
    id: SessionId,
    path: &str,
    content: &str,
    revision: Option<&str>,
) -> Result<String, Error> {
    let (content, revision) = (content.to_owned(), revision.map(str::to_owned));
    app.sessions
        .write_file(id, path, content, Encoding::Utf8, revision)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_refused_unless_the_session_is_ready() {
    let Some(app) = App::shared() else { return };
    let check = async |id, state: &'static str| {
        let list = app.sessions.list_dir(id, "/workspace").await;
        assert!(
            matches!(list, Err(Error::SessionNotReady(found)) if found == state),
            "{list:?}"
        );
        let read = app.sessions.read_file(id, "/workspace/a").await;
        assert!(
            matches!(read, Err(Error::SessionNotReady(found)) if found == state),
            "{read:?}"
        );
        let written = write(&app, id, "/workspace/a", "", None).await;
        assert!(
            matches!(written, Err(Error::SessionNotReady(found)) if found == state),
            "{written:?}"
        );
    };
    let id = app.create(None);
    check(id, "provisioning").await;
    crate::support::check_ready(&app.heard.run(id, 1).await);
    app.sessions.stop(id).await.unwrap();
    check(id, "stopped").await;
    let unknown = app
        .sessions
        .list_dir(SessionId::random(), "/workspace")
        .await;
    assert!(
        matches!(unknown, Err(Error::SessionNotFound(_))),
        "{unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_and_a_change_in_between_is_a_conflict() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let path = "/workspace/file.txt";
    let first = write(&app, id, path, "one", None).await.unwrap();
    let read = app.sessions.read_file(id, path).await.unwrap();
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
    app.sessions
        .write_file(id, "/workspace/bin", bytes.clone(), Encoding::Base64, None)
        .await
        .unwrap();
    let read = app.sessions.read_file(id, "/workspace/bin").await.unwrap();
    assert_eq!((read.content, read.encoding), (bytes, Encoding::Base64));
    let missing = app.sessions.read_file(id, "/workspace/none").await;
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
        let read = app.sessions.read_file(id, path).await;
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
    let listed = app.sessions.list_dir(id, "/workspace/root").await;
    assert!(
        matches!(listed, Err(Error::PathOutsideWorkspace(_))),
        "{listed:?}"
    );
    assert!(app.sh(id, "cat /etc/passwd").contains("root:"));
    let entries = app
        .sessions
        .list_dir(id, "/workspace")
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
        .sessions
        .list_dir(id, "/workspace")
        .await
        .unwrap()
        .entries;
    assert_eq!(entries.len(), names.len(), "{entries:#?}");
    let mut found = Vec::new();
    for entry in &entries {
        let read = app.sessions.read_file(id, &entry.path).await.unwrap();
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
        .sessions
        .list_dir(id, "/workspace")
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
        .sessions
        .list_dir(id, "/workspace/locked")
        .await
        .unwrap();
    let rows: Vec<_> = listed
        .entries
        .iter()
        .map(|entry| (&*entry.name, entry.kind))
        .collect();
    assert_eq!(rows, [("folder", FileKind::Dir), ("file", FileKind::File)]);
    let read = app.sessions.read_file(id, "/workspace/locked/file").await;
    assert_eq!(read.unwrap_err().code(), ErrorCode::FileNotUsable);
}
