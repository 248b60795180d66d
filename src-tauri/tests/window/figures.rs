//! What a session uses and prints, where the user looks for it, and what is said when its memory was used up.

use serde_json::json;

use crate::app::{App, READY, SOON};
use crate::keys::{ENTER, ESCAPE};

const CHIP: &str = "[data-testid=figures-chip]";
const POPOVER: &str = "[data-testid=figures]";
const LOG: &str = "[data-testid=log-dialog]";

/// Lets the first process of the container have a child that prints all that is written to a file: the agent itself says
/// next to nothing. It begins when the container is started next.
const PRINTER: &str = r#"
    mv /.cove/agent /.cove/agent.real
    cat > /.cove/agent <<'END'
#!/bin/sh
if [ "$1" = init ]; then
    : > /tmp/print
    tail -n 1000 -f /tmp/print >&2 &
fi
exec /.cove/agent.real "$@"
END
    chmod 755 /.cove/agent
"#;

fn in_container(app: &App, script: &str) {
    let container = app.only_container();
    let command = ["exec", "--user", "0", &container, "sh", "-c", script];
    app.engine.docker(&command).unwrap();
}

/// Returns the text of the figure of a row, `32 MiB`.
fn figure(app: &App, row: &str) -> String {
    app.window
        .text(&format!("[data-testid=figure-{row}] .figure"))
        .unwrap()
}

/// Returns how many points the line of a row has.
fn points(app: &App, row: &str) -> usize {
    let script = "
        const line = document.querySelector(`[data-testid=figure-${arguments[0]}] path.line`);
        return (line?.getAttribute('d') ?? '').split(/[ML]/).length - 1;
    ";
    let count = app.window.execute(script, &[json!(row)]).unwrap();
    usize::try_from(count.as_u64().unwrap()).unwrap()
}

fn click_with_keys(app: &App, selector: &str, key: &str) {
    let focus = "document.querySelector(arguments[0]).focus()";
    app.window.execute(focus, &[json!(selector)]).unwrap();
    app.window.driver().press(&[], key).unwrap();
}

#[test]
fn the_header_and_the_status_bar_show_what_the_session_uses_now() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.ready_session("figures");
    app.window.wait_for(CHIP, SOON).unwrap();
    // Three processes that sleep and one that works.
    in_container(
        &app,
        "head -c 40000000 /dev/zero > /dev/shm/held; for i in 1 2 3; do sleep 600 & done; (while :; do :; done) &",
    );
    let busy = |text: String| -> Option<f64> {
        let cpu: f64 = text
            .split_once("CPU ")?
            .1
            .split_once(" %")?
            .0
            .parse()
            .ok()?;
        (cpu > 30.0).then_some(cpu)
    };
    app.window
        .wait("a processor that is busy", SOON, |window| {
            Ok(busy(window.text(CHIP)?))
        })
        .unwrap();
    // From the keyboard.
    click_with_keys(&app, "[data-testid=open-figures]", &ENTER.to_string());
    app.window.wait_for(POPOVER, SOON).unwrap();
    let enough = app.window.wait("a line of a few points", SOON, |_| {
        Ok((points(&app, "cpu") >= 4 && points(&app, "memory") >= 4).then_some(()))
    });
    enough.unwrap();
    let container = app.only_container();
    let said = app
        .engine
        .docker(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.PIDs}} {{.MemUsage}}",
            &container,
        ])
        .unwrap();
    let (pids, memory) = said.split_once(' ').unwrap();
    assert_eq!(figure(&app, "pids"), pids);
    let shown = figure(&app, "memory");
    let mebibytes = |text: &str| -> f64 {
        let digits: String = text
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        digits.parse().unwrap()
    };
    assert!(shown.ends_with(" MiB"), "{shown}");
    assert!(
        (mebibytes(&shown) - mebibytes(memory)).abs() < 2.0,
        "{shown} beside {memory}"
    );
    app.window
        .wait("the files", SOON, |_| {
            Ok(figure(&app, "disk").ends_with('B').then_some(()))
        })
        .unwrap();
    let free = app.window.text("[data-testid=figure-disk] .whole").unwrap();
    assert!(free.ends_with(" free"), "{free}");
    app.settle();
    app.picture("figures");
    app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    app.window.wait_gone(POPOVER, SOON).unwrap();
    let focused = "return document.activeElement.dataset.testid";
    assert_eq!(app.window.execute(focused, &[]).unwrap(), "open-figures");

    // Who does not look at the window has nothing measured.
    let hide = "
        Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => arguments[0] });
        document.dispatchEvent(new Event('visibilitychange'));
    ";
    let hide = hide.replace("() => arguments[0]", "() => 'hidden'");
    app.window.execute(&hide, &[]).unwrap();
    app.window.wait_gone(CHIP, SOON).unwrap();
    let asked = app.recorded().asked;
    let count = |command: &str| {
        asked
            .iter()
            .filter(|asked| asked.command == command)
            .count()
    };
    assert_eq!((count("session_stats"), count("end_watch")), (1, 1));
    app.window
        .execute(&hide.replace("'hidden'", "'visible'"), &[])
        .unwrap();
    app.window.wait_for(CHIP, SOON).unwrap();
}

#[test]
fn the_log_is_followed_searched_and_harmless() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("printing");
    in_container(&app, PRINTER);
    app.invoke("stop_session", &json!({ "id": id }));
    app.window.wait_for("[data-testid=way-on]", SOON).unwrap();
    // Cove would put its agent there again.
    let name = format!("cove-{id}");
    app.engine.docker(&["start", &name]).unwrap();
    app.press("[data-testid=way-on]");
    app.wait_for_terminal();
    in_container(
        &app,
        "{ for i in $(seq 500); do echo request $i served; done; \
         printf '\\033[31mfailed\\033[0m to serve <b>request</b> \\033[2J\\n'; } >> /tmp/print",
    );
    app.press("[data-testid=open-figures]");
    app.press("[data-testid=open-log]");
    app.window.wait_for(LOG, SOON).unwrap();
    let lines = || app.window.text("[data-testid=log-lines]").unwrap();
    app.window
        .wait("the end of the log", SOON, |_| {
            Ok(lines()
                .contains("failed to serve <b>request</b> \u{241b}[2J")
                .then_some(()))
        })
        .unwrap();
    assert!(lines().contains("request 500 served"), "{}", lines());
    app.settle();
    app.picture("log");
    in_container(&app, "echo one more >> /tmp/print");
    app.window
        .wait("what is printed", SOON, |_| {
            Ok(lines().contains("one more").then_some(()))
        })
        .unwrap();

    app.window
        .keys("[data-testid=log-find]", "REQUEST 49")
        .unwrap();
    let found = || app.window.text("[data-testid=log-found]").unwrap();
    app.window
        .wait("the matches", SOON, |_| {
            Ok((found() == "11 of 11").then_some(()))
        })
        .unwrap();
    let current = || app.window.text("[data-testid=log-lines] .current").unwrap();
    assert_eq!(current(), "request 499 served");
    app.window.driver().press(&[], &ENTER.to_string()).unwrap();
    // After the last comes the first, which is far above.
    app.window
        .wait("the first match", SOON, |_| {
            Ok((found() == "1 of 11").then_some(()))
        })
        .unwrap();
    app.window
        .wait_text("[data-testid=log-lines] .current", SOON, |text| {
            text == "request 49 served"
        })
        .unwrap();
    app.settle();
    app.picture("log-search");
    app.press("[data-testid=log-only]");
    app.window
        .wait("only these", SOON, |window| {
            Ok((window.count("[data-testid=log-lines] .line")? == 11).then_some(()))
        })
        .unwrap();
    app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    if app.window.has(LOG).unwrap() {
        app.window.driver().press(&[], &ESCAPE.to_string()).unwrap();
    }
    app.window.wait_gone(LOG, SOON).unwrap();

    // That of a stopped session can be read too.
    app.invoke("stop_session", &json!({ "id": id }));
    app.window.wait_for("[data-testid=way-on]", SOON).unwrap();
    app.press("header [aria-haspopup=menu]");
    app.press("[data-action=log]");
    app.window
        .wait_for("[data-testid=log-ended]", SOON)
        .unwrap();
    app.window
        .wait("the last lines", SOON, |_| {
            Ok(lines().contains("one more").then_some(()))
        })
        .unwrap();
}

/// Returns whether the status bar shows a few mebibytes of memory, as a session has in which nothing runs.
fn is_small(chip: &str) -> bool {
    let memory = chip.split_whitespace().rev().nth(1).unwrap_or_default();
    chip.ends_with(" MiB") && memory.parse::<f64>().is_ok_and(|memory| memory < 10.0)
}

/// Makes new sessions small enough for a program to use their memory up.
fn limit_memory(app: &App, mebibytes: u64) {
    let answer = app.invoke("read_settings", &json!({}));
    let mut settings = answer["settings"].clone();
    settings["memory_limit_mb"] = json!(mebibytes);
    let answer = app.invoke("write_settings", &json!({ "settings": settings }));
    assert_eq!(answer["ok"], true, "{answer}");
}

#[test]
fn a_program_that_was_ended_for_want_of_memory_is_said_where_it_ran() {
    const STRIP: &str = "[data-testid=out-of-memory]";
    let Some(app) = App::open_or_skip() else {
        return;
    };
    limit_memory(&app, 64);
    app.ready_session("greedy");
    app.window.wait_for(CHIP, SOON).unwrap();
    app.wait_for_terminal();
    app.type_line("head -c 200m /dev/zero | tail -c 190m | wc -c");
    app.window.wait_for(STRIP, READY).unwrap();
    let text = app.window.text(STRIP).unwrap();
    assert!(
        text.contains("memory limit of 64 MiB was used up"),
        "{text}"
    );
    let line = app
        .window
        .text("[data-testid=terminal-out-of-memory]")
        .unwrap();
    assert!(line.contains("the memory of 64 MiB was used up"), "{line}");
    app.window
        .wait_for("[data-testid=out-of-memory-sign]", SOON)
        .unwrap();
    app.settle();
    app.picture("out-of-memory");
    // On a busy machine a program takes a while to end, and the engine tells it again and again.
    app.window
        .wait("the end of the program", READY, |window| {
            Ok(is_small(&window.text(CHIP)?).then_some(()))
        })
        .unwrap();
    app.press("[data-testid=dismiss-note]");
    app.window.wait_gone(STRIP, SOON).unwrap();
    app.window
        .wait_gone("[data-testid=terminal-out-of-memory]", SOON)
        .unwrap();
    app.window
        .wait_gone("[data-testid=out-of-memory-sign]", SOON)
        .unwrap();

    // Before that comes a warning, in words.
    in_container(&app, "head -c 61000000 /dev/zero > /dev/shm/held");
    app.window
        .wait_text(CHIP, SOON, |text| text.contains("Memory 9"))
        .unwrap();
    app.press("[data-testid=open-figures]");
    app.window
        .wait_text(
            "[data-testid=figure-memory] [data-testid=figure-warning]",
            SOON,
            |text| text.contains("Near the limit of 64 MiB"),
        )
        .unwrap();
    app.settle();
    app.picture("figures-near");
}
