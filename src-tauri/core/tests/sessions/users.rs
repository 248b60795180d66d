//! The image's user: owns the workspace, and gains nothing by the agent that runs as root.

use cove_core::files::Encoding;
use cove_testbed::TestImage;

use crate::support::{App, shared_registry};

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
        "for p in /proc/[0-9]*; do grep -q '^/.cove/agent.serve' $p/cmdline && stat -c %u $p && break; done",
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
