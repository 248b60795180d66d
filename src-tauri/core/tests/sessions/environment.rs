//! What the image and the session set holds in every terminal, as it does in a shell of `docker exec`.

use std::collections::BTreeMap;

use cove_testbed::Tree;

use crate::support::{App, own_image};
use crate::terminals::Shell;

/// What Debian's `/etc/profile` does, and Alpine's: it sets `PATH` anew.
const PROFILE: &str = "export PATH=/usr/bin:/bin\nexport LANG=C\n";

const SET: [&str; 6] = [
    "PATH=/usr/local/cargo/bin:/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG=de_DE.UTF-8",
    "GOPATH=/go",
    "USER=builder",
    "EMPTY=",
    "WORDS=two words",
];

const TOOL: &[u8] = b"#!/bin/sh\necho cargo-was-found\n";

/// Adds a tool where only the image's `PATH` finds it, and login files that reset that.
fn add_tool(tree: &mut Tree) {
    tree.file("usr/local/cargo/bin/cargo", 0o755, 0, TOOL.to_vec());
    tree.file("etc/profile", 0o644, 0, PROFILE.into());
    let passwd = "root:x:0:0::/root:SHELL\napp:x:1500:1500::/home/app:SHELL\n";
    let shell = if tree.contains("bin/bash") {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    tree.file(
        "etc/passwd",
        0o644,
        0,
        passwd.replace("SHELL", shell).into(),
    );
    tree.file(
        "etc/group",
        0o644,
        0,
        "root:x:0:\nstaff:x:50:other,app\napp:x:1500:\ntools:x:77:app\n".into(),
    );
    tree.folder("home/app", 0o755, 1500);
}

/// Returns the variables of `env`'s output.
fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
        .collect()
}

/// What a program may do: its user and groups, its limits, and what it could gain.
const MAY: &str =
    "id; umask; ulimit -a; grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status";

/// A terminal of this image has all that a shell of `docker exec -it` has, and a little more; and what runs in it may do what
/// it may there.
pub(crate) async fn check(app: &App, reference: &str, user: &str, shell: &str) {
    let id = app.ready(Some(reference)).await;
    let terminal = Shell::open(app, id).await;
    let found = terminal.output_of("cargo").await;
    assert_eq!(found.trim(), "cargo-was-found");
    let ours = variables(&terminal.output_of("env").await);

    let name = id.resource_name();
    let beside = [
        "exec",
        "-t",
        "--user",
        user,
        "-w",
        "/workspace",
        &name,
        shell,
        "-ic",
        "env",
    ];
    let theirs = variables(&app.engine().docker(&beside).unwrap());
    assert!(theirs.contains_key("PATH"), "{theirs:?}");
    // How a shell counts itself and what it runs is its own; `TERM` names a terminal that knows more.
    let own = ["_", "SHLVL", "TERM", "PWD", "OLDPWD"];
    for (name, value) in theirs
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
    {
        assert_eq!(ours.get(name), Some(value), "{name} of {reference}");
    }
    let added: Vec<_> = ours
        .keys()
        .filter(|name| !theirs.contains_key(*name) && !own.contains(&name.as_str()))
        .collect();
    assert!(
        added
            .iter()
            .all(|name| ["COLORTERM", "LOGNAME", "SHELL"].contains(&name.as_str())),
        "{added:?}"
    );
    assert_eq!(ours["TERM"], "xterm-256color");

    // Docker names a user's own group once more, Podman does not; it is the same to the kernel.
    let but_own_group = |said: &str| {
        let said = said.replace(",1500(app)", "").replace(" 1500 ", " ");
        said.replace('\r', "").trim().to_owned()
    };
    let ours = but_own_group(&terminal.output_of(MAY).await);
    let beside = ["exec", "--user", user, &name, shell, "-c", MAY];
    let theirs = app.engine().docker(&beside).unwrap();
    assert_eq!(ours, but_own_group(&theirs), "{reference}");
}

/// An image of busybox with a user that is in groups.
pub(crate) fn in_busybox(app: &App) -> String {
    let config = own_image::config("app", &SET);
    own_image::load(app, "environment-ash", &config, add_tool)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_environment_of_its_image_in_busybox() {
    let Some(app) = App::shared() else { return };
    let reference = in_busybox(&app);
    check(&app, &reference, "app", "sh").await;
    // A home that the image sets is that of every user.
    let config = own_image::config("app", &[&SET[..], &["HOME=/root"]].concat());
    let reference = own_image::load(&app, "environment-home", &config, |tree| {
        add_tool(tree);
        tree.file("bin/cargo", 0o755, 0, TOOL.to_vec());
    });
    check(&app, &reference, "app", "sh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_environment_of_its_image_in_bash() {
    let Some(app) = App::shared() else { return };
    let config = own_image::config("", &SET);
    let mut has_bash = false;
    let reference = own_image::load(&app, "environment-bash", &config, |tree| {
        has_bash = own_image::add_program(tree, "/bin/bash");
        add_tool(tree);
    });
    if !has_bash {
        cove_testbed::skip("this machine has no bash");
        return;
    }
    check(&app, &reference, "0", "bash").await;
}
