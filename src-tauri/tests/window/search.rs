//! Quick open and search in files, as one uses them.

use serde_json::{Value, json};

use crate::app::{App, SOON, Shell};
use crate::keys::{CONTROL, DOWN, ENTER, ESCAPE, F4, SHIFT};

const QUICK: &str = "[data-testid=quick-open]";
const TEXT: &str = "[data-testid=search-text]";

/// Puts a project into the workspace in which much can be found.
fn put_project(app: &App, id: &str) {
    let shell = Shell::open(app, id);
    shell.run(
        "mkdir -p src/routes tests build && \
         printf 'import os\\n\\n\\ndef find_user(name):\\n    return users[name]\\n\\n\\nfind_user(\"a\"), find_user(\"b\")\\n' > src/users.py && \
         for n in $(seq 200); do echo \"# line $n\"; done > src/routes/long.py && echo '    user = find_user(name)' >> src/routes/long.py && \
         echo 'assert find_user(\"x\")' > tests/test_users.py && echo 'find_user' > build/out.py && echo build > .gitignore && \
         printf 'find_user\\0' > picture.bin && ln -s /etc/passwd passwd",
    );
}

fn keys(app: &App, modifiers: &[char], text: impl Into<String>) {
    let text = text.into();
    app.window.driver().press(modifiers, &text).unwrap();
}

/// Takes the focus out of the terminal, whose shell has uses of its own for Ctrl+P.
fn leave_terminal(app: &App) {
    let script = "document.querySelector('[data-testid=file-tree] [tabindex=\"0\"]').focus()";
    app.window.execute(script, &[]).unwrap();
}

pub(crate) fn wait_script(app: &App, what: &str, script: &str, arguments: &[Value]) {
    let mut last = Value::Null;
    let outcome = app.window.wait(what, SOON, |window| {
        last = window.execute(script, arguments)?;
        Ok((last == true).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {last}"));
}

/// Shows a search with results, in a project that it makes.
pub(crate) fn show(app: &App) {
    let session =
        "return document.querySelector('[data-testid=workbench]:not([hidden])').dataset.sessionId";
    let id = app.window.execute(session, &[]).unwrap();
    put_project(app, id.as_str().unwrap());
    leave_terminal(app);
    search_for(app, "find_user");
    expect_summary(app, |text| text == "5 results in 3 files");
    app.window.click("[data-testid=search-details]").unwrap();
    keys(app, &[], F4);
}

/// Shows quick open with files.
pub(crate) fn show_quick_open(app: &App) {
    keys(app, &[CONTROL], "p");
    app.window.wait_for(QUICK, SOON).unwrap();
    keys(app, &[], "us");
    app.window.wait_for(&format!("{QUICK} mark"), SOON).unwrap();
}

/// Waits until this file is the one that is shown, with the cursor on this line of text.
pub(crate) fn expect_open(app: &App, name: &str, line: &str, has_focus: bool) {
    let script = "
        const tab = document.querySelector('[data-testid=editor] [role=tab][aria-selected=true]');
        const line = document.querySelector('[data-testid=viewer] .cm-activeLine');
        const within = document.activeElement?.closest('[data-testid=viewer]') !== null;
        const inSight = line && line.getBoundingClientRect().top < innerHeight;
        const is = [tab?.textContent.trim(), line?.textContent, within];
        return is[0] === arguments[0] && is[1] === arguments[1] && is[2] === arguments[2] && inSight ? true : is;
    ";
    let arguments = [json!(name), json!(line), json!(has_focus)];
    wait_script(app, &format!("{name} at its line"), script, &arguments);
}

/// Waits until something in the page has a text that fits.
fn expect_text(app: &App, selector: &str, fits: impl Fn(&str) -> bool) {
    let script = "return document.querySelector(arguments[0])?.textContent ?? null";
    let mut last = Value::Null;
    let outcome = app.window.wait(selector, SOON, |window| {
        last = window.execute(script, &[json!(selector)])?;
        Ok(last.as_str().is_some_and(&fits).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {last}"));
}

pub(crate) fn expect_summary(app: &App, fits: impl Fn(&str) -> bool) {
    expect_text(app, "[data-testid=search-summary]", fits);
}

/// Waits until these are the rows of the results, each as one text.
fn expect_results(app: &App, expected: &[&str]) {
    let script = "
        const rows = [...document.querySelectorAll('[data-testid=search-results] [role=treeitem]')];
        rows.sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
        const shown = (row) => [...row.querySelectorAll('span')].map((part) => part.textContent).filter(Boolean);
        const texts = rows.map((row) => shown(row).join(' | '));
        return JSON.stringify(texts) === JSON.stringify(arguments[0]) ? true : texts;
    ";
    wait_script(app, "the results", script, &[json!(expected)]);
}

/// Types a text into the search, in place of what is there.
pub(crate) fn search_for(app: &App, text: &str) {
    keys(app, &[CONTROL, SHIFT], "f");
    let focused = "return document.activeElement?.dataset.testid === 'search-text'";
    wait_script(app, "the field of the search", focused, &[]);
    keys(app, &[CONTROL], "a");
    keys(app, &[], text);
}

#[test]
fn a_file_is_opened_by_what_is_typed_of_its_name() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("quick-open");
    put_project(&app, &id);
    leave_terminal(&app);
    keys(&app, &[CONTROL], "p");
    app.window.wait_for(QUICK, SOON).unwrap();
    keys(&app, &[], "usr");
    let first = "
        const rows = [...document.querySelectorAll('[data-testid=quick-open] [role=option]')];
        const names = rows.map((row) => row.querySelector('.name').textContent);
        return JSON.stringify(names) === arguments[0] ? true : names;
    ";
    let names = json!(r#"["users.py","test_users.py"]"#);
    wait_script(&app, "both files", first, &[names]);
    let marked = "return [...document.querySelectorAll('[data-testid=quick-open] [aria-selected=true] mark')].map((mark) => mark.textContent).join('')";
    assert_eq!(app.window.execute(marked, &[]).unwrap(), "usr");
    app.picture("quick-open");
    keys(&app, &[], DOWN);
    keys(&app, &[], ENTER);
    app.window.wait_gone(QUICK, SOON).unwrap();
    expect_open(&app, "test_users.py", "assert find_user(\"x\")", true);

    // What was looked at comes first; what leads outside does not come at all.
    keys(&app, &[CONTROL], "p");
    keys(&app, &[], "users.py");
    keys(&app, &[], ENTER);
    expect_open(&app, "users.py", "import os", true);
    keys(&app, &[CONTROL], "p");
    let recent = "
        const row = document.querySelector('[data-testid=quick-open] [aria-selected=true]');
        return row?.querySelector('.name').textContent === 'test_users.py' ? true : row?.textContent ?? null;
    ";
    wait_script(&app, "the file before this one", recent, &[]);
    keys(&app, &[], "passwd");
    expect_text(&app, &format!("{QUICK} [role=status]"), |note| {
        note == "No file has such a name"
    });
    keys(&app, &[], ESCAPE);
    app.window.wait_gone(QUICK, SOON).unwrap();
    expect_open(&app, "users.py", "import os", true);
}

#[test]
fn what_is_found_in_files_is_opened_at_its_line() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("search");
    put_project(&app, &id);
    leave_terminal(&app);
    search_for(&app, "Find_User");
    expect_summary(&app, |text| text == "5 results in 3 files");
    expect_results(
        &app,
        &[
            "long.py | src/routes | 1",
            "201 | user = find_user(name)",
            "users.py | src | 3",
            "4 | def find_user(name):",
            "8 | find_user(\"a\"), find_user(\"b\")",
            "test_users.py | tests | 1",
            "1 | assert find_user(\"x\")",
        ],
    );
    app.picture("search-results");
    // A press leaves the keyboard where it is; the place is selected and in sight.
    let row = "
        const rows = [...document.querySelectorAll('[data-testid=search-results] [data-kind=line]')];
        rows.find((row) => row.textContent.includes(arguments[0])).click();
    ";
    app.window
        .execute(row, &[json!("user = find_user")])
        .unwrap();
    expect_open(&app, "long.py", "    user = find_user(name)", false);
    let selected = "
        const view = document.querySelector('[data-testid=viewer] .cm-selectionBackground');
        return view !== null && view.getBoundingClientRect().width > 10;
    ";
    wait_script(&app, "the selected match", selected, &[]);
    app.picture("search-opened");
    // By the keyboard: down into the list, where that was left, and on; Enter goes to the text.
    app.window.click(TEXT).unwrap();
    for _ in 0..3 {
        keys(&app, &[], DOWN);
    }
    keys(&app, &[], ENTER);
    expect_open(&app, "users.py", "def find_user(name):", true);
    keys(&app, &[], F4);
    expect_open(&app, "users.py", "find_user(\"a\"), find_user(\"b\")", true);

    // Capitals, and what is no expression.
    app.window.click("[data-switch=case]").unwrap();
    expect_summary(&app, |text| text == "No results");
    app.window.click("[data-switch=regex]").unwrap();
    search_for(&app, "find_(");
    app.window
        .wait_text("[data-testid=search-pane] [role=alert]", SOON, |text| {
            text.to_lowercase()
                .contains("unclosed group, at character 6")
        })
        .unwrap();
    app.picture("search-problem");
    search_for(&app, r"^def \w+\(");
    expect_summary(&app, |text| text == "1 result in 1 file");

    // Only where it is wanted, and what Git ignores when it is.
    search_for(&app, "find_user");
    expect_summary(&app, |text| text == "5 results in 3 files");
    app.window.click("[data-testid=search-details]").unwrap();
    app.window.click("[data-testid=search-exclude]").unwrap();
    keys(&app, &[], "tests, routes");
    expect_summary(&app, |text| text == "3 results in 1 file");
    app.window.click("[data-switch=ignored]").unwrap();
    expect_summary(&app, |text| text == "4 results in 2 files");
    app.picture("search-details");
}

#[test]
fn a_search_is_stopped_and_what_was_found_stays() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("search-stop");
    let shell = Shell::open(&app, &id);
    // Enough that a search takes as long as it takes to press a button, and more.
    shell.run(
        "echo needle > a; tr '\\0' x < /dev/zero | fold -w 100 | head -c 5000000 > line && \
         for n in $(seq 150); do mkdir d$n && for m in 1 2; do cp line d$n/$m; done; done",
    );
    leave_terminal(&app);
    search_for(&app, "");
    app.window.click("[data-switch=regex]").unwrap();
    // No letter of it can be skipped.
    search_for(&app, r"needle|(?:[a-z]{2,30}[^x]){3}q");
    app.window.click("[data-testid=stop-search]").unwrap();
    expect_summary(&app, |text| {
        text.contains("stopped") || text.contains("Stopped")
    });
    app.window
        .wait_gone("[data-testid=stop-search]", SOON)
        .unwrap();
    // The agent has time for another one.
    search_for(&app, "needle");
    expect_summary(&app, |text| text.starts_with("1 result in 1 file"));
}
