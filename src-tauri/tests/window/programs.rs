//! The programs that fill a screen and that everybody uses: Debian's own vim, htop, tmux and less, each in a tab, with the
//! window resized while they run, and the app killed beneath them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cove_testbed::skip;
use serde_json::json;

use crate::app::{App, SOON};
use crate::keys::{ENTER, ESCAPE};

const PROGRAMS: [&str; 4] = ["vi", "htop", "tmux", "less"];
/// What a screen needs to be drawn on: ours, and that within tmux.
const SCREENS: [&str; 3] = ["x/xterm-256color", "s/screen", "t/tmux-256color"];

/// Lays this machine's programs out as they are to be in a container; `None` where one is missing.
fn laid_out() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let lay = |from: &Path, to: &Path| {
        let to = folder.path().join(to.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    for name in PROGRAMS {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(name));
        let Some(program) = found.into_iter().find(|program| program.is_file()) else {
            skip(&format!("`{name}` is not installed"));
            return None;
        };
        lay(&program, &Path::new("/usr/local/bin").join(name));
        let libraries = Command::new("ldd").arg(&program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for library in libraries
            .split_whitespace()
            .filter(|part| part.starts_with('/'))
        {
            lay(Path::new(library), Path::new(library));
        }
    }
    for screen in SCREENS {
        let folders = ["/lib/terminfo", "/usr/share/terminfo"].map(PathBuf::from);
        let known = folders.map(|folder| folder.join(screen));
        if let Some(known) = known.into_iter().find(|known| known.is_file()) {
            lay(&known, &Path::new("/lib/terminfo").join(screen));
        }
    }
    Some(folder)
}

/// The rows of the terminal on the screen, all of them.
fn rows(app: &App) -> Vec<String> {
    let script = "
        const rows = document.querySelectorAll('[data-testid=terminal]:not([hidden]) .xterm-rows > div');
        return [...rows].map((row) => row.textContent.replaceAll('\\u00a0', ' ').trimEnd());
    ";
    let rows = app.window.execute(script, &[]).unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn wait_for_rows(app: &App, what: &str, fits: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut last = Vec::new();
    let outcome = app.window.wait(what, SOON, |_| {
        last = rows(app);
        Ok(fits(&last).then_some(()))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}\nthe screen:\n{}", last.join("\n")));
    last
}

fn show_tab(app: &App, number: usize) {
    app.press(&format!(
        "[aria-label=Terminals] .tab:nth-child({number}) [role=tab]"
    ));
}

/// What is the same before and after of each program: of htop, all but what it measures.
fn lasting(program: &str, rows: &[String]) -> Vec<String> {
    let measured = if program == "htop" {
        rows.iter().position(|row| row.contains("PID")).unwrap_or(0)
    } else {
        0
    };
    rows.iter().skip(measured).cloned().collect()
}

#[test]
fn the_programs_that_everybody_uses_follow_the_window_and_outlive_the_app() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let Some(programs) = laid_out() else { return };
    app.draw_readable_terminals();
    let id = app.ready_session("programs");
    let from = format!("{}/.", programs.path().display());
    app.engine
        .docker(&["cp", &from, &format!("cove-{id}:/")])
        .unwrap();
    let press = |keys: &str| app.window.driver().press(&[], keys).unwrap();
    let new_terminal = |number: usize| {
        app.press("[data-testid=new-terminal]");
        let open =
            "return document.querySelectorAll('[data-testid=terminal][data-terminal-id]').length";
        app.window
            .wait("another terminal", SOON, |window| {
                Ok((window.execute(open, &[])? == json!(number)).then_some(()))
            })
            .unwrap();
    };
    let bottom = |rows: &[String], text: &str| rows.last().is_some_and(|row| row.contains(text));

    app.type_line("seq 1 500 > numbers; /usr/local/bin/vi -u NONE -N numbers");
    wait_for_rows(&app, "vim", |rows| bottom(rows, "\"numbers\""));
    press("250Gobetween the lines");
    wait_for_rows(&app, "what was typed into vim", |rows| {
        rows.iter().any(|row| row == "between the lines") && bottom(rows, "-- INSERT --")
    });
    new_terminal(2);
    app.type_line("/usr/local/bin/htop");
    wait_for_rows(&app, "htop", |rows| bottom(rows, "F10"));
    // It measures no more, so that one moment is like the other.
    press("Z");
    new_terminal(3);
    app.type_line("/usr/local/bin/tmux -u -f /dev/null new -s work \\; set -g status-right at-rest \\; split-window -h");
    wait_for_rows(&app, "tmux", |rows| {
        bottom(rows, "at-rest") && rows[0].contains('│')
    });
    press(&format!("echo ri$((1))ght{ENTER}"));
    wait_for_rows(&app, "a shell in tmux", |rows| {
        rows.iter().any(|row| row.contains("ri1ght"))
    });
    new_terminal(4);
    app.type_line("/usr/local/bin/less -M numbers");
    wait_for_rows(&app, "less", |rows| bottom(rows, "numbers lines 1-"));
    press("100g");
    wait_for_rows(&app, "less further down", |rows| rows[0] == "100");

    // Each follows a window that gets smaller while it runs.
    app.window.driver().resize(1200, 700).unwrap();
    let marks = [
        ("vim", "-- INSERT --"),
        ("htop", "F10"),
        ("tmux", "at-rest"),
        ("less", "numbers lines 100-"),
    ];
    let mut before = Vec::new();
    for (number, (program, mark)) in (1..).zip(marks) {
        show_tab(&app, number);
        wait_for_rows(&app, program, |rows| bottom(rows, mark));
        app.settle();
        app.picture(&format!("program-{program}"));
        before.push(lasting(program, &rows(&app)));
    }

    let Some((app, _home)) = app.kill_and_open_again() else {
        return;
    };
    app.draw_readable_terminals();
    app.window.driver().resize(1200, 700).unwrap();
    app.wait_for_terminal();
    for ((number, (program, _)), before) in (1..).zip(marks).zip(&before) {
        show_tab(&app, number);
        wait_for_rows(&app, &format!("{program} as it was"), |rows| {
            lasting(program, rows) == *before
        });
        app.picture(&format!("program-{program}-again"));
    }
    // And they go on.
    let press = |keys: &str| app.window.driver().press(&[], keys).unwrap();
    let focus = "[role=tabpanel]:not([hidden]) [data-testid=terminal]";
    app.press(focus);
    press("G");
    wait_for_rows(&app, "the end of the file in less", |rows| {
        bottom(rows, "(END)")
    });
    show_tab(&app, 1);
    app.press(focus);
    press(&ESCAPE.to_string());
    wait_for_rows(&app, "no more insertion", |rows| !bottom(rows, "INSERT"));
    press(&format!(":wq{ENTER}"));
    app.window
        .wait("the file that vim has written", SOON, |_| {
            let answer = app.invoke(
                "read_file",
                &json!({"id": id, "path": "/workspace/numbers"}),
            );
            let content = answer["content"].as_str().unwrap_or_default();
            Ok(content
                .contains("250\nbetween the lines\n251\n")
                .then_some(()))
        })
        .unwrap();
}
