//! What runs in a terminal goes on when the app goes away, and the next one shows it as it was.

use crate::app::{App, SOON, Shell};
use crate::keys::ESCAPE;

/// Writes down the size of its terminal whenever that changes.
const SIZES: &str =
    "sh -c 'trap \"stty size >> sizes\" WINCH; stty size > sizes; while :; do sleep 0.1; done'";

#[test]
fn a_terminal_that_is_not_in_front_keeps_its_size_when_it_is_found_again() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.ready_session("size");
    app.press("[data-testid=new-terminal]");
    app.window
        .wait_for("[aria-label=Terminals] .tab:nth-child(2)", SOON)
        .unwrap();
    app.type_line(SIZES);
    let sizes = |app: &App| Shell::open(app, &id).run("cat sizes 2>/dev/null");
    app.window
        .wait("the first size", SOON, |_| {
            Ok((!sizes(&app).is_empty()).then_some(()))
        })
        .unwrap();
    let before = sizes(&app);

    let Some((app, _home)) = app.kill_and_open_again() else {
        return;
    };
    app.draw_readable_terminals();
    app.wait_for_terminal();
    app.press("[aria-label=Terminals] .tab:nth-child(2) [role=tab]");
    app.wait_for_screen("the program", |screen| screen.contains("WINCH"));
    assert_eq!(sizes(&app), before);
}

#[test]
fn an_app_that_was_killed_finds_its_terminals_as_they_were() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("outlives");
    app.type_line("x=kept; echo $((1 + 1))up");
    app.wait_for_screen("the first shell", |screen| screen.contains("2up"));
    app.press("[data-testid=new-terminal]");
    app.window
        .wait("the second terminal", SOON, |window| {
            let script = "return document.querySelectorAll('[data-testid=terminal][data-terminal-id]').length";
            Ok((window.execute(script, &[])? == 2).then_some(()))
        })
        .unwrap();
    app.type_line("vi notes");
    app.wait_for_screen("the editor", |screen| screen.contains("~\n~"));
    app.type_line("ionly in the editor");
    app.wait_for_screen("what was typed", |screen| {
        screen.starts_with("only in the editor")
    });

    let Some((app, _home)) = app.kill_and_open_again() else {
        return;
    };
    // Its web view may have forgotten how terminals are to be drawn.
    app.draw_readable_terminals();
    app.wait_for_terminal();
    app.wait_for_screen("the first shell", |screen| screen.contains("2up"));
    app.type_line("echo [$x]");
    app.wait_for_screen("its variable", |screen| screen.contains("[kept]"));
    // The answers to what programs asked long ago are not typed again.
    assert!(!app.screen().contains("1;2c"), "{}", app.screen());

    app.press("[aria-label=Terminals] .tab:nth-child(2) [role=tab]");
    app.wait_for_screen("the editor as it was", |screen| {
        screen.starts_with("only in the editor") && screen.contains("~\n~")
    });
    app.picture("outliving");
    app.press("[role=tabpanel]:not([hidden]) [data-testid=terminal]");
    app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    // Together they would be a key that the editor does not know.
    app.wait_for_screen("no more insertion", |screen| screen.contains("- notes"));
    app.type_line(":wq");
    app.wait_for_screen("the shell below it", |screen| screen.contains("vi notes"));
    app.type_line("cat notes; echo the-end");
    app.wait_for_screen("the file", |screen| {
        screen.contains("only in the editor\n") && screen.contains("\nthe-end")
    });
}
