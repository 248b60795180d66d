//! Terminals beside each other in a tab, and the names of tabs: as they were left, also for the next app.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{App, SOON};
use crate::keys::{ALT, CONTROL, ENTER, ESCAPE, F2, LEFT, RIGHT, SHIFT};

const QUESTION: &str = "[data-testid=close-terminal]";

/// What the tabs are called, and of the one in front: how many terminals it has, and how much room the first of them.
fn shown(app: &App) -> Value {
    let script = "
        const tabs = [...document.querySelectorAll('[aria-label=Terminals] [role=tab]')];
        const panel = document.querySelector('[aria-label=Terminals] [role=tabpanel]:not([hidden])');
        const border = panel?.querySelector('[role=separator]');
        return {
            tabs: tabs.map((tab) => tab.querySelector('.label').textContent),
            panes: panel?.querySelectorAll('[data-terminal-id]').length ?? 0,
            share: border ? Number(border.getAttribute('aria-valuenow')) : null,
        };
    ";
    app.window.execute(script, &[]).unwrap()
}

#[track_caller]
fn wait_until(app: &App, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let outcome = app.window.wait(what, SOON, |_| {
        last = shown(app);
        Ok(fits(&last).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    last
}

/// What a terminal of the tab in front shows.
fn screen_of(app: &App, pane: usize) -> String {
    let script = "
        const panes = document.querySelectorAll('[role=tabpanel]:not([hidden]) [data-testid=terminal-pane]');
        const rows = [...(panes[arguments[0]]?.querySelectorAll('.xterm-rows > div') ?? [])];
        return rows.map((row) => row.textContent.replaceAll('\\u00a0', ' ').trimEnd()).join('\\n').trimEnd();
    ";
    let shown = app.window.execute(script, &[json!(pane)]).unwrap();
    shown.as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_for_pane(app: &App, pane: usize, fits: impl Fn(&str) -> bool) -> String {
    let mut screen = String::new();
    let outcome = app.window.wait("what a terminal shows", SOON, |_| {
        screen = screen_of(app, pane);
        Ok(fits(&screen).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}, terminal {pane}:\n{screen}"));
    screen
}

/// Types where the keyboard is.
fn type_there(app: &App, line: &str) {
    let keys = format!("{line}{ENTER}");
    app.window.driver().press(&[], &keys).unwrap();
}

fn centre(app: &App, selector: &str) -> (f64, f64) {
    let script = "
        const { left, top, width, height } = document.querySelector(arguments[0]).getBoundingClientRect();
        return [left + width / 2, top + height / 2];
    ";
    let at = app.window.execute(script, &[json!(selector)]).unwrap();
    (at[0].as_f64().unwrap(), at[1].as_f64().unwrap())
}

/// Moves the border between two terminals, by keys and by the mouse; the programs in both are told their sizes.
fn move_the_border(app: &App) {
    let driver = app.window.driver();
    let half = wait_until(app, "halves", |shown| shown["share"] == 50);
    let border = "[role=tabpanel]:not([hidden]) [role=separator]";
    app.window
        .execute(
            "document.querySelector(arguments[0]).focus()",
            &[json!(border)],
        )
        .unwrap();
    driver.press(&[], &RIGHT.to_string()).unwrap();
    let moved = wait_until(app, "a border that moved", |shown| {
        shown["share"].as_f64() > half["share"].as_f64()
    });
    let at = centre(app, border);
    driver
        .drag(&[], at, &[(at.0 + 10.0, at.1), (at.0 + 60.0, at.1)])
        .unwrap();
    wait_until(app, "a border that was dragged", |shown| {
        shown["share"].as_f64() > moved["share"].as_f64()
    });
    for pane in [0, 1] {
        let cols = "
            const pane = document.querySelectorAll('[role=tabpanel]:not([hidden]) [data-testid=terminal-pane]')[arguments[0]];
            pane.querySelector('textarea').focus();
        ";
        app.window.execute(cols, &[json!(pane)]).unwrap();
        // The size that the program is told is the one that is drawn, once the border has come to rest.
        app.window
            .wait("the size of a terminal", SOON, |_| {
                type_there(app, "clear; stty size");
                let is_size = |line: &&str| line.split(' ').all(|part| part.parse::<u32>().is_ok());
                let told = screen_of(app, pane);
                let told = told.lines().find(is_size).map(str::to_owned);
                let drawn = "
                    const pane = document.querySelectorAll('[role=tabpanel]:not([hidden]) [data-testid=terminal-pane]')[arguments[0]];
                    return pane.querySelectorAll('.xterm-rows > div').length;
                ";
                let rows = app.window.execute(drawn, &[json!(pane)])?;
                Ok(told.filter(|told| told.starts_with(&format!("{rows} "))))
            })
            .unwrap();
    }
}

/// Gives names to a tab and to a new one: by F2 and by a double click, taken back and given up.
fn name_the_tabs(app: &App) {
    let driver = app.window.driver();
    app.press("[aria-label=Terminals] [role=tab]");
    driver.press(&[], &F2.to_string()).unwrap();
    app.window.wait_for("[data-testid=tab-name]", SOON).unwrap();
    driver.press(&[], &format!("server{ENTER}")).unwrap();
    wait_until(app, "the name", |shown| shown["tabs"] == json!(["server"]));
    app.press("[data-testid=new-terminal]");
    wait_until(app, "another tab", |shown| shown["panes"] == 1);
    type_there(app, "printf '\\033]2;tests\\007'; exec sh");
    wait_until(app, "its title", |shown| {
        shown["tabs"] == json!(["server", "tests"])
    });
    let at = centre(app, "[aria-label=Terminals] .tab:nth-child(2) [role=tab]");
    for _ in 0..2 {
        driver.press_at(&[], 0, at).unwrap();
    }
    app.window.wait_for("[data-testid=tab-name]", SOON).unwrap();
    driver.press(&[], &format!("watch <b>{ENTER}")).unwrap();
    wait_until(app, "the second name", |shown| {
        shown["tabs"] == json!(["server", "watch <b>"])
    });
    // Without a name, it is what the program says again; what is given up changes nothing.
    let rename = |name: &str| {
        driver.press(&[], &F2.to_string()).unwrap();
        app.window.wait_for("[data-testid=tab-name]", SOON).unwrap();
        driver.press(&[], &format!("\u{E017}{name}")).unwrap();
    };
    rename(&format!("no{ESCAPE}"));
    app.window
        .wait_gone("[data-testid=tab-name]", SOON)
        .unwrap();
    rename(&ENTER.to_string());
    wait_until(app, "the program's title", |shown| {
        shown["tabs"] == json!(["server", "tests"])
    });
    rename(&format!("watch{ENTER}"));
    wait_until(app, "a name", |shown| {
        shown["tabs"] == json!(["server", "watch"])
    });
}

#[test]
fn terminals_beside_each_other_and_the_names_of_tabs_outlive_the_window_and_the_app() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("beside");
    let driver = app.window.driver();
    app.type_line("mkdir -p 'a b'; cd 'a b'; x=first; echo on$((1))");
    app.wait_for_screen("the first shell", |screen| screen.contains("\non1"));

    // The shell does not get the key, and the new terminal has the keyboard and the folder.
    driver.press(&[CONTROL, SHIFT], "5").unwrap();
    wait_until(&app, "two terminals", |shown| shown["panes"] == 2);
    type_there(&app, "x=second; pwd; echo on$((2))");
    wait_for_pane(&app, 1, |screen| {
        screen.contains("/workspace/a b\n") && screen.contains("\non2")
    });
    driver.press(&[ALT], &LEFT.to_string()).unwrap();
    type_there(&app, "echo [$x]");
    wait_for_pane(&app, 0, |screen| screen.contains("[first]"));
    driver.press(&[ALT], &RIGHT.to_string()).unwrap();
    type_there(&app, "echo [$x]");
    wait_for_pane(&app, 1, |screen| screen.contains("[second]"));

    move_the_border(&app);
    name_the_tabs(&app);
    app.press("[aria-label=Terminals] .tab:nth-child(1) [role=tab]");
    let before = wait_until(&app, "the split tab", |shown| shown["panes"] == 2);
    app.settle();
    app.picture("panes");

    app.reload();
    app.wait_for_terminal();
    wait_until(&app, "all as it was before the reload", |shown| {
        *shown == before
    });
    let Some((app, _home)) = app.kill_and_open_again() else {
        return;
    };
    app.draw_readable_terminals();
    app.wait_for_terminal();
    wait_until(&app, "all as it was before the app was killed", |shown| {
        *shown == before
    });
    app.press("[role=tabpanel]:not([hidden]) [data-testid=terminal-pane]:last-child");
    for (pane, name) in [(0, "first"), (1, "second")] {
        let focus = "
            const panes = document.querySelectorAll('[role=tabpanel]:not([hidden]) [data-testid=terminal-pane]');
            panes[arguments[0]].querySelector('textarea').focus();
        ";
        app.window.execute(focus, &[json!(pane)]).unwrap();
        type_there(&app, "clear; echo [$x]");
        wait_for_pane(&app, pane, |screen| screen.contains(&format!("[{name}]")));
    }
    app.settle();
    app.picture("panes-again");
}

#[test]
fn a_terminal_beside_another_is_closed_alone_and_asked_about_alone() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.ready_session("alone");
    app.type_line("sleep 6000 & echo on$((1))");
    app.wait_for_screen("the first shell", |screen| screen.contains("\non1"));
    app.press("[data-testid=split-terminal]");
    wait_until(&app, "two terminals", |shown| shown["panes"] == 2);
    type_there(&app, "echo on$((2)); sleep 7000");
    wait_for_pane(&app, 1, |screen| screen.contains("\non2"));
    let asked = || {
        app.window.wait_for(QUESTION, SOON).unwrap();
        let named = "return [...document.querySelectorAll('[data-testid=close-terminal] code')].map((code) => code.textContent)";
        app.window.execute(named, &[]).unwrap()
    };
    let press = |selector: &str| {
        let press = "[...document.querySelectorAll(arguments[0])].at(-1).click()";
        app.window.execute(press, &[json!(selector)]).unwrap();
    };
    let give_up = || {
        app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
        app.window.wait_gone(QUESTION, SOON).unwrap();
    };
    // The tab is both of them.
    app.window
        .wait("both programs", SOON, |_| {
            press("[aria-label=Terminals] [data-testid=close-tab]");
            let named = asked();
            if named != json!(["sleep 6000", "sleep 7000"]) {
                give_up();
                return Ok(None);
            }
            Ok(Some(()))
        })
        .unwrap();
    app.settle();
    app.picture("close-panes");
    give_up();

    press("[data-testid=close-pane]");
    assert_eq!(asked(), json!(["sleep 7000"]));
    app.press("[data-testid=close-terminal] [data-testid=confirm]");
    wait_until(&app, "one terminal, with all the room", |shown| {
        shown["panes"] == 1 && shown["share"] == Value::Null
    });
    // It has the keyboard, and what ran in it goes on.
    type_there(&app, "jobs");
    wait_for_pane(&app, 0, |screen| screen.contains("Running"));
    let container = format!("cove-{id}");
    app.window
        .wait("the end of the other program", SOON, |_| {
            let running = app.engine.docker(&["top", &container, "-eo", "pid,args"])?;
            Ok((!running.contains("sleep 7000") && running.contains("sleep 6000")).then_some(()))
        })
        .unwrap();
}

#[test]
fn a_terminal_begins_in_a_folder_of_the_tree_or_where_another_is() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("here");
    app.type_line("mkdir -p src told; cd src; echo on$((1))");
    app.wait_for_screen("the folder", |screen| screen.contains("\non1"));
    let choose = |target: &str, action: &str| {
        let menu = "
            const at = [...document.querySelectorAll(arguments[0])].find((found) => !arguments[1] || found.textContent.includes(arguments[1]));
            const { left, bottom } = at.getBoundingClientRect();
            at.dispatchEvent(new MouseEvent('contextmenu', { bubbles: true, cancelable: true, clientX: left + 20, clientY: bottom - 4 }));
        ";
        let (selector, text) = target.split_once('|').unwrap_or((target, ""));
        app.window
            .execute(menu, &[json!(selector), json!(text)])
            .unwrap();
        app.press(&format!("[role=menu] [data-action={action}]"));
    };
    app.wait_and_press_file("src");
    choose("[role=treeitem]|src", "terminal");
    wait_until(&app, "another tab", |shown| {
        shown["tabs"] == json!(["Terminal 1", "Terminal 2"])
    });
    let asks_where = |expected: &str| {
        app.window
            .wait("a terminal", Duration::from_secs(20), |_| {
                Ok((shown(&app)["panes"] == 1).then_some(()))
            })
            .unwrap();
        type_there(&app, "echo [$(pwd)]");
        app.wait_for_screen("the folder", |screen| {
            screen.contains(&format!("[{expected}]"))
        });
    };
    asks_where("/workspace/src");
    // A shell that tells its folder is believed.
    type_there(
        &app,
        "printf '\\033]7;file:///workspace/told\\007'; echo on$((2))",
    );
    app.wait_for_screen("what was told", |screen| screen.contains("\non2"));
    let active = "[aria-label=Terminals] [role=tab][aria-selected=true]";
    choose(active, "new-here");
    wait_until(&app, "a third tab", |shown| {
        shown["tabs"].as_array().is_some_and(|tabs| tabs.len() == 3)
    });
    asks_where("/workspace/told");
    type_there(&app, "rmdir /workspace/told; echo on$((3))");
    app.wait_for_screen("the end of the folder", |screen| screen.contains("\non3"));
    choose(active, "new-here");
    wait_until(&app, "a fourth tab", |shown| {
        shown["tabs"].as_array().is_some_and(|tabs| tabs.len() == 4)
    });
    app.wait_for_screen("why it begins elsewhere", |screen| {
        screen.contains("is not there any more. The shell begins in /workspace.")
    });
    app.picture("folder-gone");
}

#[test]
fn a_terminal_of_a_paused_session_is_closed_only_when_the_user_says_so() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("held");
    let container = format!("cove-{id}");
    app.engine.docker(&["pause", &container]).unwrap();
    app.window
        .wait("the pause", SOON, |_| {
            let status = app.invoke("session_status", &json!({ "id": id }));
            Ok((status["state"] == "paused").then_some(()))
        })
        .unwrap();
    let close = "document.querySelector('[aria-label=Terminals] [data-testid=close-tab]').click()";
    app.window.execute(close, &[]).unwrap();
    let said = app
        .window
        .wait_text(QUESTION, SOON, |said| !said.is_empty())
        .unwrap();
    assert!(
        said.contains("The session is paused, so what is running in it is not known."),
        "{said}"
    );
    app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    app.window.wait_gone(QUESTION, SOON).unwrap();
    let open = "return document.querySelectorAll('[data-testid=terminal]').length";
    assert_eq!(app.window.execute(open, &[]).unwrap(), 1);
    app.engine.docker(&["unpause", &container]).unwrap();
}
