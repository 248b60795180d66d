//! The file tree and the viewer.

use serde_json::{Value, json};

use crate::app::{App, SOON, Shell};

/// The names that the tree shows, from top to bottom.
fn names(app: &App) -> Vec<String> {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
        rows.sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
        return rows.map((row) => row.querySelector('.name').textContent);
    ";
    serde_json::from_value(app.window.execute(script, &[]).unwrap()).unwrap()
}

fn refresh(app: &App, what: &str, fits: impl Fn(&[String]) -> bool) -> Vec<String> {
    app.window.click("[data-testid=refresh-files]").unwrap();
    let mut shown = Vec::new();
    let outcome = app.window.wait(what, SOON, |_| {
        shown = names(app);
        Ok(fits(&shown).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {shown:?}"));
    shown
}

/// Presses the row of this name as a user does.
fn press(app: &App, name: &str) {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
        const row = rows.find((row) => row.querySelector('.name').textContent === arguments[0]);
        row?.click();
        return row !== undefined;
    ";
    assert_eq!(
        app.window.execute(script, &[json!(name)]).unwrap(),
        true,
        "{name:?} is not in the tree"
    );
}

#[test]
fn the_tree_shows_after_a_refresh_what_the_terminal_made() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.ready_session("tree");
    app.type_line(
        "mkdir -p src/deep && echo 'fn main() {}' > src/main.rs && touch src/deep/x b.txt A.txt",
    );
    let shown = refresh(&app, "the new files", |names| names.len() == 3);
    assert_eq!(
        shown,
        ["src", "A.txt", "b.txt"],
        "folders first, then by name"
    );
    press(&app, "src");
    app.window
        .wait("the folder's content", SOON, |_| {
            Ok((names(&app) == ["src", "deep", "main.rs", "A.txt", "b.txt"]).then_some(()))
        })
        .unwrap();
    press(&app, "main.rs");
    app.window
        .wait_text("[data-testid=viewer] .cm-content", SOON, |text| {
            text.contains("fn main() {}")
        })
        .unwrap();
    app.picture("viewer");

    app.type_line("rm -r src b.txt");
    refresh(&app, "what is left", |names| names == ["A.txt"]);
}

#[test]
fn whatever_bytes_a_name_holds_the_file_is_shown_and_opened() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("names");
    let shell = Shell::open(&app, &id);
    // The shell's word for the name, and how the tree shows it.
    let files = [
        ("'two  words'", "two  words"),
        ("\"it's\"", "it's"),
        ("'say \"hi\"'", "say \"hi\""),
        ("\"$(printf 'new\\nline')\"", "new\u{2424}line"),
        ("\"$(printf '\\360\\237\\232\\200 go')\"", "🚀 go"),
        ("'-rf'", "-rf"),
        ("'back\\slash'", "back\\slash"),
        ("'%2e%2e'", "%2e%2e"),
        ("'<b>bold'", "<b>bold"),
    ];
    for (index, (word, _)) in files.iter().enumerate() {
        shell.run(&format!("printf 'content {index}' > ./{word}"));
    }
    // Two names that are not UTF-8, and that look the same when they are made readable.
    shell.run(
        "printf 'latin' > \"$(printf './caf\\351')\"; printf 'other' > \"$(printf './caf\\350')\"",
    );
    let shown = refresh(&app, "all files", |names| names.len() == files.len() + 2);
    app.picture("names");

    for (index, (_, name)) in files.iter().enumerate() {
        press(&app, name);
        let content = format!("content {index}");
        app.window
            .wait_text("[data-testid=viewer] .cm-content", SOON, |text| {
                text == content
            })
            .unwrap_or_else(|error| panic!("{name:?}: {error:#}"));
    }
    let strange: Vec<&String> = shown
        .iter()
        .filter(|name| name.starts_with("caf"))
        .collect();
    assert_eq!(strange.len(), 2, "{shown:?}");
    let paths = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
        const strange = rows.filter((row) => row.querySelector('.name').textContent.startsWith('caf'));
        strange[arguments[0]].click();
    ";
    let mut contents = Vec::new();
    for index in 0..2 {
        let last = contents.last().cloned();
        app.window.execute(paths, &[json!(index)]).unwrap();
        let is_new =
            |text: &str| (text == "latin" || text == "other") && last.as_deref() != Some(text);
        contents.push(
            app.window
                .wait_text("[data-testid=viewer] .cm-content", SOON, is_new)
                .unwrap(),
        );
    }
    contents.sort();
    assert_eq!(contents, ["latin", "other"]);
    app.picture("names-opened");
}

#[test]
fn no_path_leads_out_of_the_workspace() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.create_by_command(None);
    app.expect_ready(&id);
    let shell = Shell::open(&app, &id);
    shell.run("ln -s /etc/passwd out; ln -s / root; mkdir inner");
    for path in [
        "/etc/passwd",
        "/workspace/../etc/passwd",
        "/workspace/out",
        "/workspace/root/etc/passwd",
        "/workspace/inner/../../etc/passwd",
    ] {
        let answer = app.invoke("read_file", &json!({"id": id, "path": path}));
        assert_eq!(answer["ok"], false, "{path}: {answer}");
        let codes = ["PATH_OUTSIDE_WORKSPACE", "FILE_NOT_FOUND"];
        assert!(
            codes.iter().any(|code| answer["error"] == *code),
            "{path}: {answer}"
        );
        assert_eq!(answer["content"], Value::Null, "{path}");
    }
}
