//! The tree and the editor follow the disk, whoever changes it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::app::{App, SOON, Shell, figure};
use crate::files::expect;
use crate::held::{HELD, Watch};

/// How long a change may take until its row is there, in the middle of many.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Notes when each name is first in the tree, on the machine's clock.
const OBSERVE: &str = "
    const seen = (window.__seen = {});
    const look = () => {
        const now = Date.now();
        for (const name of document.querySelectorAll('[data-testid=file-tree] .name')) seen[name.textContent] ??= now;
    };
    new MutationObserver(look).observe(document.querySelector('[data-testid=file-tree]'), { subtree: true, childList: true, characterData: true });
";

/// Waits until the tree does not say any more how old it is.
fn wait_until_live(app: &App) {
    app.window
        .wait_gone("[data-testid=files-as-of]", SOON)
        .unwrap();
}

/// Returns where the files of a session are on this machine.
fn volume(app: &App, id: &str) -> PathBuf {
    let name = format!("cove-{id}");
    let place = ["volume", "inspect", "--format", "{{.Mountpoint}}", &name];
    PathBuf::from(app.engine.docker(&place).unwrap().trim())
}

/// Whether a row has this class.
fn has_class(app: &App, name: &str, class: &str) -> bool {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
        const row = rows.find((row) => row.querySelector('.name').textContent === arguments[0]);
        return row?.classList.contains(arguments[1]) ?? false;
    ";
    app.window
        .execute(script, &[json!(name), json!(class)])
        .unwrap()
        == true
}

fn expect_text(app: &App, what: &str, expected: &str) {
    app.window
        .wait_text("[data-testid=viewer] .cm-content", SOON, |text| {
            text.contains(expected)
        })
        .unwrap_or_else(|error| panic!("{what}: {error:#}"));
}

#[test]
fn what_changes_on_the_disk_is_in_the_tree_at_once() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("live");
    let shell = Shell::open(&app, &id);
    shell.run("mkdir -p src/deep docs && echo one > src/one && echo read > README.md");
    expect(&app, "the tree", &["docs", "src", "README.md"]);
    app.wait_and_press_file("src");
    expect(
        &app,
        "the tree",
        &["docs", "src", "deep", "one", "README.md"],
    );
    wait_until_live(&app);

    app.window.execute(OBSERVE, &[]).unwrap();
    let folder = volume(&app, &id).join("src");
    let mut took: Vec<Duration> = (0..20)
        .map(|number| {
            let name = format!("new-{number}");
            let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            fs::write(folder.join(&name), "").unwrap();
            let seen = app.window.wait(&name, SOON, |window| {
                let seen = window.execute("return window.__seen[arguments[0]]", &[json!(name)])?;
                Ok(seen.as_u64())
            });
            Duration::from_millis(seen.unwrap()).saturating_sub(made)
        })
        .collect();
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    figure("from the disk to the tree, ms, median", median.as_millis());
    figure("the longest of them", longest.as_millis());
    assert!(median < AT_ONCE, "{took:?}");

    shell.run("rm -f src/new-*; mv src/one src/two; mv README.md src/deep");
    expect(&app, "the tree", &["docs", "src", "deep", "two"]);
    // As a checkout does it: the folder is another, and stays open.
    shell.run("rm -r src && mkdir -p src/deep && echo x > src/other");
    expect(&app, "the tree", &["docs", "src", "deep", "other"]);
    shell.run("echo y > src/later");
    expect(&app, "the tree", &["docs", "src", "deep", "later", "other"]);
    // What Git ignores is dimmed as soon as that is said, also in folders below.
    shell.run("printf 'later\\n/docs/\\n' > .gitignore");
    app.window
        .wait("what is ignored", SOON, |_| {
            let is_ignored = |name| has_class(&app, name, "ignored");
            let fits = is_ignored("later") && is_ignored("docs") && !is_ignored("other");
            Ok(fits.then_some(()))
        })
        .unwrap();
    app.picture("live");

    // A file that is open and not edited follows, too; also when it goes and comes.
    app.wait_and_press_file("other");
    expect_text(&app, "the file", "x");
    shell.run("echo changed > src/other");
    expect_text(&app, "the change", "changed");
    shell.run("echo replaced > src/new && mv src/new src/other");
    expect_text(&app, "the replacement", "replaced");
    // Through a reload of the page, and after it.
    app.reload();
    app.window
        .wait_for("[data-testid=file-tree] [role=treeitem]", SOON)
        .unwrap();
    wait_until_live(&app);
    shell_free(&app, &id, "echo again > after-reload");
    expect(
        &app,
        "the tree",
        &["docs", "src", ".gitignore", "after-reload"],
    );
}

/// Runs a command in the container, without the window.
fn shell_free(app: &App, id: &str, command: &str) {
    let container = format!("cove-{id}");
    app.engine
        .docker(&[
            "exec",
            "--workdir",
            "/workspace",
            &container,
            "sh",
            "-c",
            command,
        ])
        .unwrap();
}

#[test]
fn a_storm_of_changes_ends_in_the_right_tree_and_holds_nothing_up() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("storm");
    let shell = Shell::open(&app, &id);
    shell.run("mkdir -p many && : > many/first");
    app.wait_and_press_file("many");
    expect(&app, "the tree", &["many", "first"]);
    wait_until_live(&app);
    let watch = Watch::begin(&app);
    // 100,000 changes: a hundred files come and go, again and again.
    shell.run(
        "for n in $(seq 500); do for m in $(seq 100); do : > many/$m; done; rm many/*; done; \
         : > many/a; : > many/b",
    );
    expect(&app, "the tree", &["many", "a", "b"]);
    let held = watch.end();
    figure("the page held by the storm, ms", held.as_millis());
    assert!(held < HELD, "{held:?}");
    // It follows on.
    shell.run(": > many/c");
    expect(&app, "the tree", &["many", "a", "b", "c"]);
}
