//! A day's work in one session: once with a pointer, which types only what is text, and once with the keyboard alone. A file
//! is made, edited, saved, met by a change from outside, renamed, found and searched; terminals are opened and closed, a
//! server is reached, files come and go.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::accessibility::check;
use crate::app::{App, SOON, Shell};
use crate::editor::{expect_strip, expect_unsaved};
use crate::files::{choose, expect, type_name};
use crate::keys::{CONTROL, DOWN, ENTER, ESCAPE, F2, F6, HOME, SHIFT, TAB, UP};
use crate::ports::{get, row, wait_for_chip, wait_shown};
use crate::search::{expect_open, expect_summary, wait_script};
use crate::transfers::Machine;

/// How often Tab, an arrow or F6 may be pressed until something is reached.
const FAR: usize = 40;

const EDITOR: &str = "[data-testid=viewer] .cm-content";
const UPLOAD_AND_DOWNLOAD: &str =
    "[data-testid=workbench]:not([hidden]) .files [aria-label='Upload and download']";

fn keys(app: &App, text: impl Into<String>) {
    app.window.driver().press(&[], &text.into()).unwrap();
}

fn with(app: &App, held: &[char], text: impl Into<String>) {
    app.window.driver().press(held, &text.into()).unwrap();
}

/// Puts the cursor in front of the text by a press into it.
fn press_into_text(app: &App) {
    app.window.click(EDITOR).unwrap();
    with(app, &[CONTROL], HOME);
}

/// Presses the row of a result of a search.
fn press_result(app: &App, text: &str) {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=search-results] [role=treeitem]')];
        const row = rows.find((row) => row.textContent.includes(arguments[0]));
        const box = row?.getBoundingClientRect();
        return box ? [box.left + box.width / 2, box.top + box.height / 2] : null;
    ";
    let place = app.window.execute(script, &[json!(text)]).unwrap();
    let place = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    app.window.driver().press_at(&[], 0, place).unwrap();
}

fn expect_terminals(app: &App, count: usize) {
    let script = "return document.querySelectorAll('[aria-label=Terminals] [role=tab]').length === arguments[0]";
    wait_script(app, "the terminals", script, &[json!(count)]);
}

/// Waits for the page of the server that the session runs.
fn expect_page(app: &App, address: &str) {
    let page = app.window.wait("the page of the server", SOON, |_| {
        Ok(get(address)
            .ok()
            .filter(|page| page == "from the session\n"))
    });
    page.unwrap();
}

#[test]
fn a_day_by_pointer() {
    let Some(machine) = Machine::open_or_skip("Adwaita") else {
        return;
    };
    let app = &machine.app;
    let id = app.ready_session("pointer");
    let shell = Shell::open(app, &id);

    app.press("[data-testid=new-file]");
    type_name(app, &format!("notes.txt{ENTER}"));
    expect(app, "the new file", &["notes.txt"]);
    app.wait_and_press_file("notes.txt");
    app.window.wait_for(EDITOR, SOON).unwrap();
    press_into_text(app);
    keys(app, "needle in the morning");
    expect_unsaved(app, 1);
    app.press("[data-testid=save-file]");
    expect_unsaved(app, 0);
    assert_eq!(shell.run("cat notes.txt"), "needle in the morning");

    press_into_text(app);
    keys(app, "mine ");
    expect_unsaved(app, 1);
    shell.run("echo theirs > notes.txt");
    expect_strip(app, "changed-on-disk", true);
    app.press("[data-choice=compare]");
    app.window.wait_for("[data-testid=compare]", SOON).unwrap();
    app.settle();
    app.picture("day-conflict");
    app.press("[data-choice=overwrite]");
    expect_strip(app, "changed-on-disk", false);
    assert_eq!(shell.run("cat notes.txt"), "mine needle in the morning");

    app.press("[data-panel=search]");
    app.press("[data-testid=search-text]");
    keys(app, "needle");
    expect_summary(app, |text| text == "1 result in 1 file");
    app.settle();
    press_result(app, "needle in the morning");
    expect_open(app, "notes.txt", "mine needle in the morning", false);

    app.press("[data-testid=new-terminal]");
    expect_terminals(app, 2);
    shell.run("echo from the session > index.html");
    app.type_line("busybox httpd -p 18230 -h /workspace");
    let address = wait_for_chip(app, 18_230);
    expect_page(app, &address);
    app.press("[data-panel=ports]");
    wait_shown(app, "the port", &row(18_230), |text| {
        text.contains("busybox")
    });
    app.picture("day-port");
    app.press(&format!("{} [data-act=stop]", row(18_230)));
    wait_shown(app, "the end", &row(18_230), |text| {
        text.contains("not forwarded")
    });
    app.press("[aria-label=Terminals] .tab.active [data-testid=close-tab]");
    expect_terminals(app, 1);

    app.press("[data-panel=files]");
    let (upload, there) = (machine.at("from here.txt"), machine.at("there"));
    fs::write(&upload, "from this machine\n").unwrap();
    fs::create_dir(&there).unwrap();
    machine.choose("upload-files", &[&upload]);
    machine.wait_for_names(&["from here.txt", "index.html", "notes.txt"]);
    app.wait_and_press_file("notes.txt");
    let down = there.join("notes.txt");
    machine.choose("download", &[&down]);
    expect_download(app, &down, "mine needle in the morning");

    // The driver holds the right button down from here on.
    choose(app, "notes.txt", "rename");
    type_name(app, &format!("diary{ENTER}"));
    expect(
        app,
        "the new name",
        &["diary.txt", "from here.txt", "index.html"],
    );
    check(app, "day-by-pointer-light");
}

fn expect_download(app: &App, place: &Path, content: &str) {
    let found = app.window.wait("what was downloaded", SOON, |_| {
        let found = fs::read_to_string(place).ok();
        Ok(found.filter(|found| found == content))
    });
    found.unwrap();
}

/// A user without a pointer.
struct Typist<'a>(&'a App);

impl Typist<'_> {
    fn is_at(&self, selector: &str) -> bool {
        let script = "return document.activeElement?.closest(arguments[0]) !== null";
        self.0.window.execute(script, &[json!(selector)]).unwrap() == true
    }

    /// Presses a key until the focus is where it is wanted.
    fn go(&self, held: &[char], key: char, selector: &str) {
        for _ in 0..FAR {
            if self.is_at(selector) {
                return;
            }
            with(self.0, held, key);
        }
        let script = "return document.activeElement?.outerHTML.slice(0, 300) ?? null";
        let at = self.0.window.execute(script, &[]).unwrap();
        panic!("{selector} is not reached; the focus is at {at}");
    }

    fn region(&self, selector: &str) {
        self.go(&[CONTROL], F6, selector);
    }

    fn tree(&self) {
        self.region(".side");
        self.go(&[], TAB, ".side [role=tree]");
    }

    fn terminal(&self) {
        self.region(".xterm");
    }

    /// Leaves the editor: Tab indents in it, but for two seconds after Escape, in which nothing else is asked of the page.
    fn leave_text(&self, held: &[char]) {
        keys(self.0, ESCAPE);
        with(self.0, held, TAB);
    }

    /// Goes to a view of the files by the arrows of their rail.
    fn view(&self, name: &str) {
        self.region(".side");
        self.go(&[SHIFT], TAB, ".rail [role=tab]");
        let wanted = format!("[data-panel={name}]");
        for key in [UP, UP, DOWN, DOWN] {
            if self.is_at(&wanted) {
                break;
            }
            keys(self.0, key);
        }
        assert!(self.is_at(&wanted), "{name}");
        keys(self.0, ENTER);
    }

    /// Chooses from the menu of uploads and downloads, and in the dialog this.
    fn carry(&self, machine: &Machine, action: &str, chosen: &Path) {
        fs::write(machine.at("chosen"), chosen.display().to_string()).unwrap();
        self.region(".side");
        // The tree is behind the buttons.
        self.go(&[SHIFT], TAB, UPLOAD_AND_DOWNLOAD);
        keys(self.0, ENTER);
        self.0.window.wait_for("[role=menu]", SOON).unwrap();
        self.0.settle();
        self.go(&[], DOWN, &format!("[data-action={action}]"));
        keys(self.0, ENTER);
        self.0.window.wait_gone("[role=menu]", SOON).unwrap();
    }
}

#[test]
fn a_day_by_keyboard() {
    let Some(machine) = Machine::open_or_skip("Adwaita:dark") else {
        return;
    };
    let app = &machine.app;
    let me = Typist(app);
    app.window
        .wait_for("[data-testid=first-run]", SOON)
        .unwrap();
    with(app, &[CONTROL], "n");
    let named = "return document.activeElement?.name === 'project_name'";
    wait_script(app, "the focus on the name", named, &[]);
    keys(app, format!("keyboard{ENTER}"));
    app.wait_for_terminal();
    let id = app.recorded().heard[0].session().to_owned();
    let shell = Shell::open(app, &id);

    me.region(".side");
    me.go(&[], TAB, "[data-testid=new-file]");
    keys(app, ENTER);
    type_name(app, &format!("notes.txt{ENTER}"));
    expect(app, "the new file", &["notes.txt"]);
    me.tree();
    keys(app, format!("{HOME}{ENTER}"));
    app.window.wait_for(EDITOR, SOON).unwrap();
    me.region(EDITOR);
    keys(app, "needle in the morning");
    expect_unsaved(app, 1);
    with(app, &[CONTROL], "s");
    expect_unsaved(app, 0);
    assert_eq!(shell.run("cat notes.txt"), "needle in the morning");

    with(app, &[CONTROL], HOME);
    keys(app, "mine ");
    expect_unsaved(app, 1);
    shell.run("echo theirs > notes.txt");
    expect_strip(app, "changed-on-disk", true);
    me.leave_text(&[SHIFT]);
    me.go(&[SHIFT], TAB, "[data-choice=overwrite]");
    keys(app, ENTER);
    expect_strip(app, "changed-on-disk", false);
    assert_eq!(shell.run("cat notes.txt"), "mine needle in the morning");

    me.tree();
    keys(app, format!("{HOME}{F2}"));
    type_name(app, &format!("diary{ENTER}"));
    expect(app, "the new name", &["diary.txt"]);

    with(app, &[CONTROL, SHIFT], "f");
    let searching = "return document.activeElement?.dataset.testid === 'search-text'";
    wait_script(app, "the field of the search", searching, &[]);
    keys(app, "needle");
    expect_summary(app, |text| text == "1 result in 1 file");
    keys(app, format!("{DOWN}{DOWN}{ENTER}"));
    expect_open(app, "diary.txt", "mine needle in the morning", true);

    // Behind the editor come the terminals and their buttons.
    me.leave_text(&[]);
    me.go(&[], TAB, "[data-testid=new-terminal]");
    keys(app, ENTER);
    expect_terminals(app, 2);
    me.terminal();
    shell.run("echo from the session > index.html");
    keys(app, format!("busybox httpd -p 18231 -h /workspace{ENTER}"));
    let address = wait_for_chip(app, 18_231);
    expect_page(app, &address);
    me.view("ports");
    wait_shown(app, "the port", &row(18_231), |text| {
        text.contains("busybox")
    });
    me.go(&[], TAB, &format!("{} [data-act=stop]", row(18_231)));
    keys(app, ENTER);
    wait_shown(app, "the end", &row(18_231), |text| {
        text.contains("not forwarded")
    });
    me.terminal();
    keys(app, format!("exit{ENTER}"));

    me.view("files");
    let (upload, there) = (machine.at("from here.txt"), machine.at("there"));
    fs::write(&upload, "from this machine\n").unwrap();
    fs::create_dir(&there).unwrap();
    me.tree();
    me.carry(&machine, "upload-files", &upload);
    machine.wait_for_names(&["diary.txt", "from here.txt", "index.html"]);
    me.tree();
    keys(app, HOME);
    let down = there.join("diary.txt");
    me.carry(&machine, "download", &down);
    expect_download(app, &down, "mine needle in the morning");
    app.picture("day-by-keyboard");
    check(app, "day-by-keyboard-dark");
}
