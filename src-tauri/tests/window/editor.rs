//! The editor: what is typed is saved as the file writes its text, what changed underneath is asked about, and what was
//! not saved is there again.

use serde_json::json;

use crate::app::{App, SOON, Shell};
use crate::files::{choose, expect, type_name};
use crate::keys::{CONTROL, ENTER};

const CONTENT: &str = "[data-testid=viewer] .cm-content";

/// Opens a file from the tree, once it is there.
fn open(app: &App, name: &str) {
    app.window.click("[data-testid=refresh-files]").unwrap();
    app.wait_and_press_file(name);
    let tab = "
        const tab = document.querySelector('[data-testid=editor] [role=tab][aria-selected=true]');
        return tab?.textContent.trim().startsWith(arguments[0]) === true;
    ";
    app.window
        .wait("its tab", SOON, |window| {
            Ok((window.execute(tab, &[json!(name)])? == true).then_some(()))
        })
        .unwrap();
    app.window.wait_for(CONTENT, SOON).unwrap();
}

/// Types at the beginning of the text.
fn type_first(app: &App, text: &str) {
    app.window.click(CONTENT).unwrap();
    let driver = app.window.driver();
    driver.press(&[CONTROL], "\u{E011}").unwrap();
    driver.press(&[], text).unwrap();
}

fn save(app: &App) {
    app.window.driver().press(&[CONTROL], "s").unwrap();
}

/// Waits until so many tabs have the dot of unsaved text.
pub(crate) fn expect_unsaved(app: &App, count: usize) {
    app.window
        .wait(&format!("{count} unsaved tabs"), SOON, |window| {
            let marks = window.count("[data-testid=tab-mark]")?;
            Ok((marks == count).then_some(()))
        })
        .unwrap();
}

pub(crate) fn expect_text(app: &App, what: &str) {
    app.window
        .wait_text(CONTENT, SOON, |text| text.contains(what))
        .unwrap();
}

/// Waits until the strip of this name is there, or gone.
pub(crate) fn expect_strip(app: &App, name: &str, there: bool) {
    let selector = format!("[data-testid={name}]");
    if there {
        app.window.wait_for(&selector, SOON).unwrap();
    } else {
        app.window.wait_gone(&selector, SOON).unwrap();
    }
}

/// Returns the bytes of a file as the container has them, in hex.
fn bytes(shell: &Shell<'_>, name: &str) -> String {
    let dumped = shell.run(&format!("od -An -tx1 -v ./{name}"));
    dumped.split_whitespace().collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// Writes bytes into a file of the container.
fn put(shell: &Shell<'_>, name: &str, bytes: &[u8]) {
    let escaped = bytes.iter().map(|byte| format!("\\{byte:03o}"));
    let escaped = escaped.collect::<Vec<_>>().concat();
    shell.run(&format!("printf '{escaped}' > ./{name}"));
}

#[test]
fn what_is_typed_is_saved_and_every_other_byte_stays_as_it_was() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("saving");
    let shell = Shell::open(&app, &id);
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    // The bytes before, and how many of them come before what is typed.
    let files: [(&str, Vec<u8>, usize, Vec<u8>); 7] = [
        ("unix.txt", b"one\ntwo\n".to_vec(), 0, b"X".to_vec()),
        ("windows.txt", b"one\r\ntwo\r\n".to_vec(), 0, b"X".to_vec()),
        (
            "mixed.txt",
            b"one\r\ntwo\nthree\rfour".to_vec(),
            0,
            b"X".to_vec(),
        ),
        (
            "marked.txt",
            b"\xef\xbb\xbfone\r\n".to_vec(),
            3,
            b"X".to_vec(),
        ),
        (
            "wide.txt",
            [b"\xff\xfe".to_vec(), wide("Grüße\r\n")].concat(),
            2,
            wide("X"),
        ),
        (
            "latin.txt",
            b"Die Gr\xf6\xdfe der Stra\xdfe \xe4ndert sich h\xe4ufig.\n".to_vec(),
            0,
            b"X".to_vec(),
        ),
        ("empty.txt", Vec::new(), 0, b"X".to_vec()),
    ];
    for (name, before, _, _) in &files {
        put(&shell, name, before);
    }
    shell.run("chmod 640 unix.txt");
    for (name, before, at, typed) in &files {
        open(&app, name);
        type_first(&app, "X");
        expect_unsaved(&app, 1);
        if *name == "mixed.txt" {
            app.picture("editor-unsaved");
        }
        save(&app);
        expect_unsaved(&app, 0);
        let expected = [&before[..*at], typed, &before[*at..]].concat();
        assert_eq!(bytes(&shell, name), hex(&expected), "{name}");
    }
    assert_eq!(shell.run("stat -c %a unix.txt").trim(), "640");

    // What cannot be written back as it was is for reading alone, and says why.
    put(
        &shell,
        "wrong.txt",
        b"alles l\xc3\xa4uft sch\xc3\xb6n \xff\n",
    );
    open(&app, "wrong.txt");
    expect_strip(&app, "read-only", true);
    app.picture("editor-read-only");
    type_first(&app, "X");
    save(&app);
    expect_unsaved(&app, 0);
    assert_eq!(
        bytes(&shell, "wrong.txt"),
        hex(b"alles l\xc3\xa4uft sch\xc3\xb6n \xff\n")
    );
}

#[test]
fn a_file_that_changes_underneath_is_taken_quietly_or_asked_about() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("underneath");
    let shell = Shell::open(&app, &id);
    let lines = (1..40).map(|line| format!("line {line}\\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    shell.run(&format!("printf '{lines}' > a.txt"));
    open(&app, "a.txt");
    expect_text(&app, "line 7");

    // Nothing was edited: what the terminal does is there.
    app.type_line("sed -i 's/line 7$/line seven/' a.txt");
    expect_text(&app, "line seven");
    expect_strip(&app, "changed-on-disk", false);

    // Something was: a save finds out, and each answer does what it says.
    let conflict = |mine: &str, theirs: &str| {
        type_first(&app, mine);
        expect_unsaved(&app, 1);
        shell.run(&format!("sed -i 's/line 9.*/{theirs}/' a.txt"));
        save(&app);
        expect_strip(&app, "changed-on-disk", true);
        assert!(shell.run("cat a.txt").contains(theirs));
    };
    conflict("mine1 ", "line 9 theirs1");
    app.picture("editor-changed");
    app.press("[data-choice=compare]");
    app.window
        .wait_text("[data-testid=compare] .cm-merge-a", SOON, |text| {
            text.contains("line 9 theirs1")
        })
        .unwrap();
    app.window
        .wait_text("[data-testid=compare] .cm-merge-b", SOON, |text| {
            text.contains("mine1 line 1") && !text.contains("theirs1")
        })
        .unwrap();
    app.settle();
    app.picture("editor-compare");
    app.press("[data-choice=overwrite]");
    expect_unsaved(&app, 0);
    expect_strip(&app, "changed-on-disk", false);
    let saved = shell.run("cat a.txt");
    assert!(
        saved.starts_with("mine1 line 1\n") && saved.contains("line 9\n"),
        "{saved}"
    );

    conflict("mine2 ", "line 9 theirs2");
    app.press("[data-choice=theirs]");
    expect_unsaved(&app, 0);
    expect_text(&app, "line 9 theirs2");
    assert!(!app.window.text(CONTENT).unwrap().contains("mine2"));

    // One that was deleted is said to be, and a save makes it again.
    type_first(&app, "mine3 ");
    shell.run("rm a.txt");
    expect_strip(&app, "deleted-on-disk", true);
    app.picture("editor-deleted");
    app.press("[data-choice=save]");
    expect_strip(&app, "deleted-on-disk", false);
    expect_unsaved(&app, 0);
    assert!(shell.run("cat a.txt").starts_with("mine3 mine1 line 1\n"));
}

#[test]
fn undo_and_cursor_stay_with_a_tab_and_closing_it_unsaved_asks() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("tabs");
    let shell = Shell::open(&app, &id);
    shell.run("printf 'first\\n' > a.txt; printf 'second\\n' > b.txt");
    open(&app, "a.txt");
    type_first(&app, "typed ");
    open(&app, "b.txt");
    expect_text(&app, "second");
    let first = "[data-testid=editor] [role=tab]";
    app.window.click(first).unwrap();
    expect_text(&app, "typed first");
    // The cursor is where it was, and what was typed can be undone.
    let focus = "document.querySelector('[data-testid=viewer] .cm-content').focus()";
    app.window.execute(focus, &[]).unwrap();
    app.window.driver().press(&[], "on").unwrap();
    expect_text(&app, "typed onfirst");
    for _ in 0..2 {
        app.window.driver().press(&[CONTROL], "z").unwrap();
    }
    expect_unsaved(&app, 0);

    let close = |choice: &str| {
        app.window.click(first).unwrap();
        let script =
            "document.querySelector('[data-testid=editor] [data-testid=close-tab]').click()";
        app.window.execute(script, &[]).unwrap();
        app.window
            .wait_for("[data-testid=unsaved-dialog]", SOON)
            .unwrap();
        app.settle();
        app.picture(&format!("editor-closing-{choice}"));
        app.press(&format!("[data-choice={choice}]"));
        app.window
            .wait_gone("[data-testid=unsaved-dialog]", SOON)
            .unwrap();
    };
    type_first(&app, "kept ");
    expect_unsaved(&app, 1);
    close("cancel");
    expect_text(&app, "kept first");
    close("save");
    app.window
        .wait("one tab", SOON, |window| {
            Ok((window.count(first)? == 1).then_some(()))
        })
        .unwrap();
    assert_eq!(shell.run("cat a.txt"), "kept first\n");
    type_first(&app, "lost ");
    expect_unsaved(&app, 1);
    close("discard");
    app.window.wait_gone("[data-testid=editor]", SOON).unwrap();
    assert_eq!(shell.run("cat b.txt"), "second\n");
    open(&app, "b.txt");
    expect_unsaved(&app, 0);
}

#[test]
fn a_file_that_is_renamed_in_the_tree_keeps_its_tab_and_its_unsaved_text() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("renamed");
    let shell = Shell::open(&app, &id);
    shell.run("printf 'text\\n' > a.txt");
    open(&app, "a.txt");
    type_first(&app, "mine ");
    expect_unsaved(&app, 1);
    choose(&app, "a.txt", "rename");
    // Its ending is not selected.
    type_name(&app, &format!("b{ENTER}"));
    expect(&app, "the new name", &["b.txt"]);
    app.window
        .wait("the tab's new name", SOON, |window| {
            let tab = "return document.querySelector('[data-testid=editor] [role=tab]').textContent.trim()";
            let shown = window.execute(tab, &[])?;
            Ok(shown.as_str().is_some_and(|shown| shown.starts_with("b.txt")).then_some(()))
        })
        .unwrap();
    expect_text(&app, "mine text");
    expect_unsaved(&app, 1);
    expect_strip(&app, "deleted-on-disk", false);
    expect_strip(&app, "changed-on-disk", false);
    type_first(&app, "all ");
    save(&app);
    expect_unsaved(&app, 0);
    assert_eq!(shell.run("echo *").trim(), "b.txt");
    assert_eq!(bytes(&shell, "b.txt"), hex(b"all mine text\n"));
    expect_drafts(&app, &id, 0);
}

#[test]
fn search_replaces_and_keeps_the_keyboard_in_the_editor() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("replacing");
    let shell = Shell::open(&app, &id);
    shell.run("printf 'def f():\\n  cat\\n  cat\\n' > a.py");
    open(&app, "a.py");
    app.window.click(CONTENT).unwrap();
    app.window.driver().press(&[CONTROL], "h").unwrap();
    app.window.wait_for(".cm-search", SOON).unwrap();
    app.window.keys(".cm-search [name=search]", "cat").unwrap();
    app.window.keys(".cm-search [name=replace]", "dog").unwrap();
    app.picture("editor-replace");
    app.window.click(".cm-search [name=replaceAll]").unwrap();
    expect_text(&app, "dog");
    // A new line is indented as the file's own are.
    app.window.click(CONTENT).unwrap();
    let driver = app.window.driver();
    driver.press(&[CONTROL], "\u{E010}").unwrap();
    driver.press(&[], &format!("if x:{ENTER}pass")).unwrap();
    save(&app);
    expect_unsaved(&app, 0);
    assert_eq!(
        shell.run("cat a.py"),
        "def f():\n  dog\n  dog\nif x:\n  pass"
    );
}

/// Waits until so many texts are kept on this machine.
fn expect_drafts(app: &App, id: &str, count: usize) {
    app.window
        .wait(&format!("{count} drafts"), SOON, |_| {
            let answer = app.invoke("read_drafts", &json!({ "id": id }));
            let drafts = answer["drafts"].as_array().map(Vec::len);
            Ok((drafts == Some(count)).then_some(()))
        })
        .unwrap();
}

#[test]
fn unsaved_text_outlives_the_window_and_the_app_and_overwrites_nothing() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("drafts");
    let shell = Shell::open(&app, &id);
    shell.run("printf 'first\\r\\n' > a.txt; printf 'second\\n' > b.txt");
    for name in ["a.txt", "b.txt"] {
        open(&app, name);
        type_first(&app, "unsaved ");
    }
    expect_unsaved(&app, 2);
    expect_drafts(&app, &id, 2);

    app.reload();
    app.wait_for_terminal();
    expect_unsaved(&app, 2);
    expect_text(&app, "unsaved second");
    let shell = Shell::open(&app, &id);
    shell.run("printf 'theirs\\n' > b.txt");

    let Some((app, _home)) = app.kill_and_open_again() else {
        return;
    };
    expect_unsaved(&app, 2);
    open(&app, "b.txt");
    expect_text(&app, "unsaved second");
    expect_strip(&app, "changed-on-disk", true);
    app.picture("editor-resumed");
    let shell = Shell::open(&app, &id);
    assert_eq!(shell.run("cat b.txt"), "theirs\n");
    app.press("[data-choice=theirs]");
    expect_unsaved(&app, 1);
    open(&app, "a.txt");
    expect_text(&app, "unsaved first");
    expect_strip(&app, "changed-on-disk", false);
    app.window.click(CONTENT).unwrap();
    save(&app);
    expect_unsaved(&app, 0);
    assert_eq!(bytes(&shell, "a.txt"), hex(b"unsaved first\r\n"));
    expect_drafts(&app, &id, 0);

    // A session's drafts go with it.
    type_first(&app, "again ");
    expect_drafts(&app, &id, 1);
    let folder = app
        .window
        .home()
        .join(".local/share/dev.cove.desktop/drafts");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let deleted = app.invoke("delete_session", &json!({ "id": id }));
    assert_eq!(deleted["ok"], true, "{deleted}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}
