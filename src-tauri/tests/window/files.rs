//! The file tree and the viewer.

use serde_json::{Value, json};

use crate::app::{App, SOON, Shell};
use crate::keys::{CONTROL, DELETE, DOWN, END, ENTER, ESCAPE, F2, F10, HOME, SHIFT, TAB, UP};

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
    assert!(app.press_file(name), "{name:?} is not in the tree");
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
    // Many tabs scroll in their strip, and nothing around them does.
    let scrolled = "
        const around = [];
        for (let at = document.querySelector('[data-testid=editor] [role=tablist]').parentElement; at; at = at.parentElement) {
          if (at.scrollLeft !== 0 || at.scrollTop !== 0) around.push(`${at.tagName}.${at.className} ${at.scrollLeft} ${at.scrollTop} ${at.scrollWidth} ${at.clientWidth}`);
        }
        return around;
    ";
    assert_eq!(app.window.execute(scrolled, &[]).unwrap(), json!([]));
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

/// Where the middle of a row is on the page.
fn place(app: &App, name: &str) -> (f64, f64) {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
        const row = rows.find((row) => row.querySelector('.name').textContent === arguments[0]);
        const box = row?.getBoundingClientRect();
        return box ? [box.left + box.width / 2, box.top + box.height / 2] : null;
    ";
    let place = app.window.execute(script, &[json!(name)]).unwrap();
    let at = |index: usize| place[index].as_f64();
    at(0)
        .zip(at(1))
        .unwrap_or_else(|| panic!("{name:?} is not in the tree: {:?}", names(app)))
}

/// Presses a row with a real pointer.
fn click(app: &App, held: &[char], name: &str) {
    let driver = app.window.driver();
    driver.press_at(held, 0, place(app, name)).unwrap();
}

/// Opens the menu of a row and chooses from it.
pub(crate) fn choose(app: &App, name: &str, action: &str) {
    let driver = app.window.driver();
    driver.press_at(&[], 2, place(app, name)).unwrap();
    app.press(&format!("[data-action={action}]"));
}

/// Types into the field for a name, in place of what is selected there.
pub(crate) fn type_name(app: &App, name: &str) {
    let field = "[data-testid=entry-name]";
    app.window.wait_for(field, SOON).unwrap();
    app.window
        .wait("the focus in the field", SOON, |window| {
            let focused = "return document.activeElement?.dataset.testid === 'entry-name'";
            Ok((window.execute(focused, &[])? == true).then_some(()))
        })
        .unwrap();
    app.window.driver().press(&[], name).unwrap();
}

#[track_caller]
pub(crate) fn expect(app: &App, what: &str, expected: &[&str]) {
    let mut shown = Vec::new();
    let outcome = app.window.wait(what, SOON, |_| {
        shown = names(app);
        Ok((shown == expected).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {shown:?}"));
}

/// The names of the rows that are selected.
fn selected(app: &App) -> Vec<String> {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=file-tree] [aria-selected=true]')];
        rows.sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
        return rows.map((row) => row.querySelector('.name').textContent);
    ";
    serde_json::from_value(app.window.execute(script, &[]).unwrap()).unwrap()
}

#[track_caller]
fn expect_selected(app: &App, expected: &[&str]) {
    let mut found = Vec::new();
    let outcome = app.window.wait("the selection", SOON, |_| {
        found = selected(app);
        Ok((found == expected).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {found:?}"));
}

#[test]
fn files_are_made_renamed_moved_and_deleted_by_mouse() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("by-mouse");
    let shell = Shell::open(&app, &id);

    app.window.click("[data-testid=new-folder]").unwrap();
    type_name(&app, &format!("src{ENTER}"));
    expect(&app, "the folder", &["src"]);
    choose(&app, "src", "new-file");
    type_name(&app, "main.rs");
    app.picture("files-new");
    app.window.driver().press(&[], &ENTER.to_string()).unwrap();
    expect(&app, "the file", &["src", "main.rs"]);
    expect_selected(&app, &["main.rs"]);
    assert_eq!(shell.run("test -f src/main.rs && echo there"), "there\n");

    // A name that is taken is said at the field, and nowhere else.
    choose(&app, "src", "new-file");
    type_name(&app, &format!("main.rs{ENTER}"));
    let problem = "[data-testid=entry-name-problem]";
    app.window
        .wait_text(problem, SOON, |text| text.contains("taken"))
        .unwrap();
    app.picture("files-taken");
    assert!(!app.window.has("[data-sonner-toast]").unwrap());
    assert!(!app.window.has("[data-testid=files-error]").unwrap());
    app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    app.window
        .wait_gone("[data-testid=entry-name]", SOON)
        .unwrap();

    choose(&app, "main.rs", "rename");
    // The stem is selected, the extension stays.
    type_name(&app, &format!("lib{ENTER}"));
    expect(&app, "the new name", &["src", "lib.rs"]);
    shell.run("echo 'pub fn a() {}' > src/lib.rs; mkdir docs");
    refresh(&app, "the other folder", |names| names.len() == 3);

    let (x, y) = place(&app, "docs");
    let over = [(x, y - 6.0), (x + 4.0, y), (x, y)];
    let driver = app.window.driver();
    driver
        .drag(&[CONTROL], place(&app, "lib.rs"), &over)
        .unwrap();
    expect(&app, "the copy", &["docs", "lib.rs", "src", "lib.rs"]);
    choose(&app, "src", "duplicate");
    expect(
        &app,
        "the duplicate",
        &["docs", "lib.rs", "src", "lib.rs", "src copy"],
    );
    let (x, y) = place(&app, "docs");
    let over = [(x, y + 6.0), (x + 4.0, y), (x, y)];
    driver.drag(&[], place(&app, "src copy"), &over).unwrap();
    expect(
        &app,
        "the folder in the other",
        &["docs", "src copy", "lib.rs", "src", "lib.rs"],
    );
    assert_eq!(
        shell.run("find docs src -type f | sort; cat 'docs/src copy/lib.rs'"),
        "docs/lib.rs\ndocs/src copy/lib.rs\nsrc/lib.rs\npub fn a() {}\n"
    );
    // What falls beside all rows falls into the workspace itself; a name that is taken there is said.
    shell.run("touch lib.rs");
    let (x, y) = place(&app, "src");
    let over = [(x, y + 20.0), (x, y + 200.0), (x, y + 201.0)];
    driver.drag(&[], place(&app, "lib.rs"), &over).unwrap();
    app.window
        .wait_text("[data-testid=files-error]", SOON, |text| {
            text.contains("already")
        })
        .unwrap();
    app.picture("files-refused");
    assert!(!app.window.has("[data-sonner-toast]").unwrap());

    click(&app, &[], "docs");
    expect(
        &app,
        "the closed folder",
        &["docs", "src", "lib.rs", "lib.rs"],
    );
    click(&app, &[CONTROL], "src");
    choose(&app, "src", "delete");
    expect(&app, "what is left", &["lib.rs"]);
    app.picture("files-deleted");
    assert_eq!(shell.run("ls | cat"), "lib.rs\n");
    app.press("[data-sonner-toast] [data-button]");
    expect(&app, "what came back", &["docs", "src", "lib.rs", "lib.rs"]);
    expect_selected(&app, &["docs", "src"]);
    assert_eq!(
        shell.run("find docs src -type f | sort"),
        "docs/lib.rs\ndocs/src copy/lib.rs\nsrc/lib.rs\n"
    );
    app.picture("files-back");
}

#[test]
fn files_are_made_renamed_moved_and_deleted_by_keyboard() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("by-keyboard");
    let shell = Shell::open(&app, &id);
    shell.run("mkdir lib; echo one > a.txt; echo two > b.txt; echo hidden > .env");
    shell.run("printf 'latin' > \"$(printf './caf\\351')\"");
    refresh(&app, "all files", |names| names.len() == 5);
    let strange = "caf\u{fffd}";
    expect(
        &app,
        "the files",
        &["lib", ".env", "a.txt", "b.txt", strange],
    );
    let driver = app.window.driver();
    let keys = |keys: &str| driver.press(&[], keys).unwrap();
    // The focus goes there by Tab from the button before.
    app.window
        .execute(
            "document.querySelector('[data-testid=refresh-files]').focus()",
            &[],
        )
        .unwrap();
    keys(&TAB.to_string());
    keys(&format!("{HOME}{DOWN}{DOWN}{F2}"));
    type_name(&app, &format!("first{ENTER}"));
    expect(
        &app,
        "the new name",
        &["lib", ".env", "b.txt", strange, "first.txt"],
    );
    expect_selected(&app, &["first.txt"]);
    assert!(
        !app.window.has("[role=dialog]").unwrap(),
        "F2 is the tree's here"
    );

    driver.press(&[SHIFT], &UP.to_string()).unwrap();
    expect_selected(&app, &[strange, "first.txt"]);
    driver.press(&[CONTROL], "x").unwrap();
    keys(&HOME.to_string());
    driver.press(&[CONTROL], "v").unwrap();
    expect(
        &app,
        "the moved files",
        &["lib", strange, "first.txt", ".env", "b.txt"],
    );
    expect_selected(&app, &[strange, "first.txt"]);
    assert_eq!(
        shell.run("cat \"$(printf 'lib/caf\\351')\" lib/first.txt"),
        "latinone\n"
    );

    driver.press(&[CONTROL], "c").unwrap();
    driver.press(&[CONTROL], "v").unwrap();
    let copies = [
        "lib",
        strange,
        "caf\u{fffd} copy",
        "first copy.txt",
        "first.txt",
    ];
    expect(
        &app,
        "the copies",
        &[&copies[..], &[".env", "b.txt"]].concat(),
    );
    assert_eq!(shell.run("cat \"$(printf 'lib/caf\\351 copy')\""), "latin");

    keys(&DELETE.to_string());
    expect(
        &app,
        "what is left",
        &["lib", strange, "first.txt", ".env", "b.txt"],
    );
    expect_selected(&app, &["first.txt"]);
    keys(&DELETE.to_string());
    expect(&app, "what is left", &["lib", strange, ".env", "b.txt"]);
    driver.press(&[CONTROL], "z").unwrap();
    expect(
        &app,
        "the last delete undone",
        &["lib", strange, "first.txt", ".env", "b.txt"],
    );
    driver.press(&[CONTROL], "z").unwrap();
    expect(
        &app,
        "both undone",
        &[&copies[..], &[".env", "b.txt"]].concat(),
    );

    check_menu_by_keyboard(&app, strange);
    assert_eq!(
        shell.run("ls -A1 | sort"),
        ".cove-trash\n.env\nb.txt\nlib\nnew folder\n"
    );
}

/// Makes a folder by the menu, from the keyboard alone, and hides what is hidden.
fn check_menu_by_keyboard(app: &App, strange: &str) {
    let driver = app.window.driver();
    let keys = |keys: &str| driver.press(&[], keys).unwrap();
    keys(&END.to_string());
    expect_selected(app, &["b.txt"]);
    driver.press(&[SHIFT], &F10.to_string()).unwrap();
    app.window.wait_for("[role=menu]", SOON).unwrap();
    app.settle();
    app.picture("files-menu");
    keys(&format!("{DOWN}{ENTER}"));
    type_name(app, &format!("new folder{ENTER}"));
    let mut all = vec![
        "lib",
        strange,
        "caf\u{fffd} copy",
        "first copy.txt",
        "first.txt",
    ];
    all.extend(["new folder", ".env", "b.txt"]);
    expect(app, "the new folder", &all);
    expect_selected(app, &["new folder"]);
    let focused = "return document.activeElement?.getAttribute('role')";
    assert_eq!(app.window.execute(focused, &[]).unwrap(), "tree");

    app.window.click("[data-testid=toggle-hidden]").unwrap();
    all.retain(|name| *name != ".env");
    expect(app, "no hidden file", &all);
    app.picture("files-by-keyboard");
}
