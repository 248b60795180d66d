//! The image's user: owns the workspace, and gains nothing by the agent that runs as root.

use std::path::Path;

use cove_core::files::Encoding;
use cove_core::session::{SessionId, Source};
use cove_testbed::TestImage;
use serde_json::json;

use crate::support::{App, check_ready, own_image, shared_registry};
use crate::terminals::Shell;

/// Everything in a session of this image is done as this user.
async fn check(image: TestImage, uid: &str) {
    let Some(app) = App::shared() else { return };
    let id = app.ready(Some(&shared_registry().reference(image))).await;
    let owner = |path: &str| app.sh(id, &format!("stat -c %u {path}"));
    assert_eq!(owner("/workspace"), uid);
    let path = "/workspace/made";
    app.sessions
        .write_file(id, path, "x".to_owned(), Encoding::Utf8, None)
        .await
        .unwrap();
    assert_eq!(owner(path), uid);
    let server = app.sh(
        id,
        "for p in /proc/[0-9]*; do grep -q '^/.cove/agent.serve' $p/cmdline && \
         sed -n 's/^Uid:.\\([0-9]*\\).*/\\1/p' $p/status && break; done",
    );
    assert_eq!(server, uid, "the server runs as the user");

    // The agent as process 1 is root's.
    assert_eq!(owner("/proc/1"), "0");
    let untouched = app.sh(id, "md5sum /.cove/agent");
    for attack in [
        "kill -9 1",
        "kill -STOP 1",
        "echo x > /.cove/agent",
        "rm -f /.cove/agent",
        "mv /.cove /tmp/x",
        "echo x > /.cove/state",
        "cat /proc/1/environ",
        "ls -l /proc/1/fd/",
        "dd if=/proc/1/mem bs=1 count=1",
        "echo x > /proc/1/oom_score_adj",
        "cat /proc/1/root/.cove/agent > /dev/null",
        "mount -t tmpfs none /mnt",
        "echo x > /etc/passwd",
    ] {
        let (done, said) = app.exec(id, uid, &["sh", "-c", attack]);
        assert!(!done, "`{attack}` was allowed: {said}");
    }
    assert_eq!(app.sh(id, "md5sum /.cove/agent"), untouched);
    let (_, status) = app.exec(id, uid, &["cat", "/proc/self/status"]);
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(app.sessions.list_dir(id, "/workspace").await.is_ok());

    // The workspace stays the user's when the session is opened again.
    app.sessions.stop(id).await.unwrap();
    app.open(id, 2).await;
    assert_eq!(
        app.sh(id, "stat -c %u /workspace /workspace/made"),
        format!("{uid}\n{uid}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_name_owns_the_workspace_and_gains_nothing() {
    check(TestImage::NonRoot, "1234").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_user_owns_the_workspace_and_gains_nothing() {
    check(TestImage::NamedUser, "1500").await;
}

/// What even root inside has no business with.
#[tokio::test(flavor = "multi_thread")]
async fn root_inside_cannot_make_devices_or_raw_packets() {
    let Some(app) = App::shared() else { return };
    let id = app
        .ready(Some(&shared_registry().reference(TestImage::Tiny)))
        .await;
    for attack in [
        "mknod /tmp/disk b 8 0",
        "mount -t tmpfs none /mnt",
        "ping -c 1 -W 1 127.0.0.1",
    ] {
        let (done, said) = app.exec(id, "0", &["sh", "-c", attack]);
        assert!(!done, "`{attack}` was allowed: {said}");
    }
}

/// Writes an archive as somebody's laptop makes it: each file with its owner.
fn write_archive(path: &Path, files: &[(&str, u64)]) {
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, owner) in files {
        let mut header = tar::Header::new_gnu();
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_size(0);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
        } else {
            header.set_mode(0o644);
        }
        archive.append_data(&mut header, name, &[][..]).unwrap();
    }
    archive.finish().unwrap();
}

/// Everything in the workspace belongs to this user, who can change it.
async fn check_workspace(app: &App, id: SessionId, uid: &str, file: &str) {
    let owners = app.sh(id, "find /workspace -exec stat -c %u {} + | sort -u");
    assert_eq!(owners, uid);
    for path in [format!("/workspace/{file}"), "/workspace/new".to_owned()] {
        app.sessions
            .write_file(id, &path, "x".to_owned(), Encoding::Utf8, None)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_archive_belong_to_the_user_of_any_image() {
    let Some(app) = App::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("project.tar");
    let files = [
        ("project/", 501),
        ("project/mine", 501),
        ("project/roots", 0),
        ("project/devs", 1000),
    ];
    write_archive(&path, &files);
    let registry = shared_registry();
    for (image, uid) in [
        (None, "1000"),
        (Some(registry.reference(TestImage::Tiny)), "0"),
        (Some(registry.reference(TestImage::NonRoot)), "1234"),
    ] {
        let request = json!({ "workspace_id": "tests", "image": image });
        let source = Source::Archive { path: path.clone() };
        let id = app.sessions.create_from(&request, Some(source)).unwrap();
        app.adopt(id);
        check_ready(&app.heard.run(id, 1).await);
        check_workspace(&app, id, uid, "project/roots").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_onto_another_user_hands_the_files_over() {
    let Some(app) = App::shared() else { return };
    let registry = shared_registry();
    let id = app.ready(Some(&registry.reference(TestImage::Tiny))).await;
    app.sh(
        id,
        "mkdir /workspace/folder && touch /workspace/folder/file",
    );
    for (run, (image, uid)) in [
        (registry.reference(TestImage::NonRoot), "1234"),
        (registry.reference(TestImage::NamedUser), "1500"),
        (registry.reference(TestImage::Tiny), "0"),
    ]
    .iter()
    .enumerate()
    {
        app.sessions.rebuild(id, Some(image)).await.unwrap();
        check_ready(&app.heard.run(id, run + 2).await);
        check_workspace(&app, id, uid, "folder/file").await;
    }
    // What belongs to another than the last user stays, and so does all when the user is the same.
    app.sh(id, "mkdir /workspace/data && chown 999 /workspace/data");
    for (run, image) in [TestImage::Tiny, TestImage::NonRoot].iter().enumerate() {
        let image = registry.reference(*image);
        app.sessions.rebuild(id, Some(&image)).await.unwrap();
        check_ready(&app.heard.run(id, run + 5).await);
        assert_eq!(app.sh(id, "stat -c %u /workspace/data"), "999");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_holds_in_its_workspace_belongs_to_its_user() {
    let Some(app) = App::shared() else { return };
    let config = own_image::config("1000", &[]);
    let image = own_image::load(&app, "full-workspace", &config, |tree| {
        tree.folder("workspace/node_modules", 0o755, 0);
        tree.file("workspace/node_modules/index.js", 0o644, 0, b"1".to_vec());
    });
    let id = app.ready(Some(&image)).await;
    check_workspace(&app, id, "1000", "node_modules/index.js").await;
}

/// The streams of the agent's processes are between them and the app, whoever else runs as their user.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_processes_are_closed_to_the_others_of_their_user() {
    let Some(app) = App::shared() else { return };
    for (image, uid) in [(TestImage::NonRoot, "1234"), (TestImage::Tiny, "0")] {
        let id = app.ready(Some(&shared_registry().reference(image))).await;
        let terminal = Shell::open(&app, id).await;
        assert_eq!(terminal.output_of("echo works").await.trim(), "works");
        for process in ["init", "serve", "terminal"] {
            let find = format!(
                "for p in /proc/[0-9]*; do grep -q '^/.cove/agent.{process}' $p/cmdline && echo ${{p#/proc/}} && break; done"
            );
            let pid = app.sh(id, &find);
            for file in [
                "fd/0", "fd/1", "fd/2", "environ", "mem", "maps", "exe", "cwd/x", "root/x",
            ] {
                let (done, said) = app.exec(
                    id,
                    uid,
                    &["head", "-c", "1", &format!("/proc/{pid}/{file}")],
                );
                assert!(!done, "{file} of {process} is open to {uid}: {said}");
                assert!(
                    !said.contains("No such file"),
                    "{file} of {process}: {said}"
                );
            }
        }
    }
}
