//! The image's user: owns the workspace, and gains nothing by the agent that runs as root.

use std::path::Path;

use cove_core::error::ErrorCode;
use cove_core::files::Encoding;
use cove_core::session::{SessionId, Source};
use cove_testbed::{TestImage, Tree};
use serde_json::json;

use crate::support::{App, check_failed, check_ready, own_image, shared_registry};
use crate::terminals::Shell;

/// Everything in a session of this image is done as this user.
async fn check(image: TestImage, uid: &str) {
    let Some(app) = App::shared() else { return };
    let id = app.ready(Some(&shared_registry().reference(image))).await;
    let owner = |path: &str| app.sh(id, &format!("stat -c %u {path}"));
    assert_eq!(owner("/workspace"), uid);
    let path = "/workspace/made";
    app.session(id)
        .await
        .write_file(path, "x".to_owned(), Encoding::Utf8, None)
        .await
        .unwrap();
    assert_eq!(owner(path), uid);
    let server = app.sh(
        id,
        "for p in /proc/[0-9]*; do grep -q '^/.cove/agent.daemon' $p/cmdline && \
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
    assert!(app.session(id).await.list_dir("/workspace").await.is_ok());

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
    let owners = app.sh(id, "find /workspace/ -exec stat -c %u {} + | sort -u");
    assert_eq!(owners, uid);
    for path in [format!("/workspace/{file}"), "/workspace/new".to_owned()] {
        app.session(id)
            .await
            .write_file(&path, "x".to_owned(), Encoding::Utf8, None)
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
        for process in ["init", "daemon", "connect"] {
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

/// An image of this user and with this in it fails to become a session, as it fails to run by itself.
async fn check_refused(
    app: &App,
    name: &str,
    user: &str,
    add: impl FnOnce(&mut Tree),
    code: ErrorCode,
    said: [&str; 2],
) {
    let image = own_image::load(app, name, &own_image::config(user, &[]), add);
    let beside = ["run", "--rm", "--volume", "/workspace", &image, "true"];
    assert!(!app.engine().run(&beside).unwrap().status.success());
    let (id, run) = app.create_and_wait(Some(&image)).await;
    let error = check_failed(&run, code, None);
    assert!(error.message.contains(said[0]), "{error:?}");
    assert!(error.hint.contains(said[1]), "{error:?}");
    assert!(!error.hint.to_lowercase().contains("retry"), "{error:?}");
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_the_user_or_group_that_it_names_is_refused_by_that_name() {
    let Some(app) = App::shared() else { return };
    check_unknown_users(&app).await;
}

pub(crate) async fn check_unknown_users(app: &App) {
    let accounts = |tree: &mut Tree| {
        let passwd = "root:x:0:0::/:/bin/sh\napp:x:1500:1500::/:/bin/sh\n";
        tree.file("etc/passwd", 0o644, 0, passwd.into());
        tree.file("etc/group", 0o644, 0, "root:x:0:\n".into());
    };
    for (name, user, said) in [
        ("no-user", "ghost", ["user `ghost`", "`/etc/passwd`"]),
        ("no-group", "app:wheel", ["group `wheel`", "`/etc/group`"]),
        (
            "no-group-of-a-number",
            "1234:wheel",
            ["group `wheel`", "`/etc/group`"],
        ),
        (
            "beyond-all-users",
            "4000000000",
            ["user `4000000000`", "2147483647"],
        ),
    ] {
        check_refused(app, name, user, accounts, ErrorCode::ImageUserUnknown, said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_workspace_can_be_no_folder_is_refused_with_what_it_has_there() {
    let Some(app) = App::shared() else { return };
    check_unusable_workspaces(&app).await;
}

pub(crate) async fn check_unusable_workspaces(app: &App) {
    let file: fn(&mut Tree) = |tree| {
        tree.file("workspace", 0o644, 0, b"a file".to_vec());
    };
    let to_a_file: fn(&mut Tree) = |tree| {
        tree.file("opt/file", 0o644, 0, b"a file".to_vec());
        tree.link("workspace", "/opt/file");
    };
    let through_a_file: fn(&mut Tree) = |tree| {
        tree.file("opt/file", 0o644, 0, b"a file".to_vec());
        tree.link("workspace", "/opt/file/folder");
    };
    let to_itself: fn(&mut Tree) = |tree| {
        tree.link("workspace", "/workspace");
    };
    for (name, add) in [
        ("workspace-file", file),
        ("workspace-to-a-file", to_a_file),
        ("workspace-through-a-file", through_a_file),
        ("workspace-to-itself", to_itself),
    ] {
        let said = ["a link that leads to no folder", "with a folder there"];
        check_refused(app, name, "", add, ErrorCode::WorkspaceUnusable, said).await;
    }
    // The engine itself would run it; the session's user could then replace what runs as root.
    let to_the_agent = own_image::load(
        app,
        "workspace-to-the-agent",
        &own_image::config("1000", &[]),
        |tree| {
            tree.link("workspace", "/.cove");
        },
    );
    let (id, run) = app.create_and_wait(Some(&to_the_agent)).await;
    let error = check_failed(&run, ErrorCode::WorkspaceUnusable, None);
    assert!(error.message.contains("where the agent lives"), "{error:?}");
    app.check_nothing_is_left(id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_is_a_link_is_followed_as_the_engine_follows_it() {
    let Some(app) = App::shared() else { return };
    check_linked_workspaces(&app).await;
}

pub(crate) async fn check_linked_workspaces(app: &App) {
    let to_a_folder: fn(&mut Tree) = |tree| {
        tree.file("home/dev/ws/own", 0o644, 0, b"of the image".to_vec());
        tree.link("workspace", "/home/dev/ws");
    };
    let dangling: fn(&mut Tree) = |tree| {
        tree.link("workspace", "home/dev/none");
    };
    for (name, add) in [("link-folder", to_a_folder), ("link-dangling", dangling)] {
        let image = own_image::load(app, name, &own_image::config("1234", &[]), add);
        let id = app.ready(Some(&image)).await;
        check_workspace(app, id, "1234", "made").await;
        app.sessions.stop(id).await.unwrap();
        app.open(id, 2).await;
        let listed = app.session(id).await.list_dir("/workspace").await.unwrap();
        let names: Vec<_> = listed.entries.iter().map(|entry| &*entry.name).collect();
        let expected: &[&str] = if name == "link-folder" {
            &["made", "new", "own"]
        } else {
            &["made", "new"]
        };
        assert_eq!(names, expected);
    }
}

/// Whether a program that belongs to root and has the bit of `sudo` is root when a user runs it.
fn becomes_root(app: &App, id: SessionId) -> bool {
    app.sh(id, "echo secret > /etc/secret && chmod 600 /etc/secret");
    let (read, said) = app.exec(id, "1234", &["/usr/bin/cat", "/etc/secret"]);
    assert_eq!(said == "secret", read, "{said}");
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lets_programs_become_root_only_where_that_was_allowed_and_keeps_to_it() {
    let Some(app) = App::shared() else { return };
    check_privilege_gain(&app).await;
}

pub(crate) async fn check_privilege_gain(app: &App) {
    let mut has_cat = false;
    let mut config = own_image::config("1234", &[]);
    // An image cannot allow it by a label that its containers inherit.
    let label = "dev.cove.privilege-gain".to_owned();
    config.labels.insert(label, "allowed".to_owned());
    let image = own_image::load(app, "with-sudo", &config, |tree| {
        has_cat = own_image::add_program(tree, "/usr/bin/cat");
        if let Ok(cat) = std::fs::read("/usr/bin/cat") {
            tree.file("usr/bin/cat", 0o4755, 0, cat);
        }
        tree.folder("etc", 0o755, 0);
    });
    if !has_cat {
        return cove_testbed::skip("this machine has no cat");
    }
    let create = async |allow: Option<bool>| {
        let request =
            json!({ "workspace_id": "tests", "image": image, "allow_privilege_gain": allow });
        let id = app.create_from(&request);
        check_ready(&app.heard.run(id, 1).await);
        id
    };
    let allowed = async |id: SessionId| {
        let status = app.sessions.status(id).await.unwrap();
        assert_eq!(status.session.allow_privilege_gain, becomes_root(app, id));
        status.session.allow_privilege_gain
    };
    let plain = create(None).await;
    assert!(!allowed(plain).await);
    let with_sudo = create(Some(true)).await;
    assert!(allowed(with_sudo).await);

    // It stays, whatever becomes of the session, and is known to another app too.
    app.sessions.rebuild(plain, None).await.unwrap();
    check_ready(&app.heard.run(plain, 2).await);
    assert!(!allowed(plain).await);
    app.sessions.rebuild(with_sudo, None).await.unwrap();
    check_ready(&app.heard.run(with_sudo, 2).await);
    assert!(allowed(with_sudo).await);
    let copy = app.sessions.duplicate(with_sudo, None).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    assert!(allowed(copy).await);
    let again = app.again();
    let listed = again.sessions.list().await;
    for (id, expected) in [(plain, false), (with_sudo, true), (copy, true)] {
        let session = listed.iter().find(|session| session.session_id == id);
        assert_eq!(session.unwrap().allow_privilege_gain, expected);
    }

    // A rebuild can change it, both ways.
    let rebuild = app.sessions.rebuild_allowing(plain, None, Some(true));
    rebuild.await.unwrap();
    check_ready(&app.heard.run(plain, 3).await);
    assert!(allowed(plain).await);
    let rebuild = app.sessions.rebuild_allowing(plain, None, Some(false));
    rebuild.await.unwrap();
    check_ready(&app.heard.run(plain, 4).await);
    assert!(!allowed(plain).await);
}
