//! What a container says is a stranger's input: whatever it writes, names or sends, the page goes on, the
//! app stays small, and the user sees what it is.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::app::{App, READY, SOON, figure};
use crate::held::{HELD, Watch};

/// How much the app may grow over all inputs.
const GROWTH: u64 = 50 << 20;

fn write(app: &App, id: &str, path: &str, content: &[u8]) {
    let file =
        json!({"id": id, "path": path, "content": BASE64.encode(content), "encoding": "base64"});
    let answer = app.invoke("write_file", &file);
    assert_eq!(answer["ok"], true, "{path}: {answer}");
}

/// Waits until the shell on the screen has written something into this file.
fn wait_for_file(app: &App, id: &str, name: &str) {
    let path = format!("/workspace/{name}");
    app.window
        .wait(&format!("the shell's `{name}`"), READY, |_| {
            let answer = app.invoke("read_file", &json!({"id": id, "path": path}));
            let content = answer["content"].as_str();
            let is_there = content.is_some_and(|content| !content.is_empty());
            Ok(is_there.then_some(()))
        })
        .unwrap();
}

/// Streams that held the page, or would if only those that did were mended.
fn streams() -> Vec<(&'static str, String)> {
    let marks = |count| "\u{301}".repeat(count);
    let screen_of_marks = format!("a{}", marks(40)).repeat(3_000);
    let clusters = (0..500_u32).map(|n| {
        let mark = |n| char::from_u32(0x300 + n % 64).unwrap();
        format!("a{}{}{}", mark(n), mark(n / 64), marks(6))
    });
    let colours = (0..3_000).map(|colour| format!("\x1b]11;#0000{:02x}\x07", colour % 256));
    vec![
        (
            "a scroll by a thousand million lines",
            "\x1b[999999999S".to_owned(),
        ),
        ("as many lines inserted", "\x1b[999999999L".to_owned()),
        (
            "a character repeated as often",
            "x\x1b[2147483647b".to_owned(),
        ),
        ("20,000 scrolls by a screen", "\x1b[40S".repeat(20_000)),
        ("20,000 screens of repetition", "x\x1b[1000b".repeat(20_000)),
        ("20,000 resets", "\x1bc".repeat(20_000)),
        ("20,000 cleared screens", "\x1b[2J".repeat(20_000)),
        (
            "5,000 changes of the screen",
            "\x1b[?1049h\x1b[?1049l".repeat(5_000),
        ),
        (
            "100,000 marks on one letter",
            format!("a{}", marks(100_000)),
        ),
        ("a screen of letters with marks", screen_of_marks),
        ("500 letters with other marks each", clusters.collect()),
        (
            "3,000 characters of Chinese",
            ('\u{4e00}'..'\u{59b8}').collect(),
        ),
        (
            "a title of 5 MB",
            format!("\x1b]0;{}\x07", "T".repeat(5_000_000)),
        ),
        ("200,000 titles", "\x1b]2;another title\x07".repeat(200_000)),
        (
            "a control string of 5 MB",
            format!("\x1bP{}\x1b\\", "q".repeat(5_000_000)),
        ),
        ("3,000 backgrounds", colours.collect()),
        ("200,000 deletes", "\x7f".repeat(200_000)),
        ("200,000 line feeds", "\n".repeat(200_000)),
        (
            "10,000 links",
            "\x1b]8;;http://a.test/\x07x\x1b]8;;\x07".repeat(10_000),
        ),
        (
            "50,000 links on one line, and 20,000 lines behind it",
            format!(
                "{}{}",
                "\x1b]8;;http://a.test/\x07x\x1b]8;;\x07\r".repeat(50_000),
                "\n".repeat(20_000)
            ),
        ),
        (
            "a link of 20,000 lines",
            format!("\x1b]8;;http://a.test/\x07{}", "x\n".repeat(20_000)),
        ),
    ]
}

#[test]
fn counts_marks_and_strings_without_end_do_not_hold_the_page_and_no_output_fills_the_app() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("streams");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stream");
    let stream = format!("{}:/workspace/stream", app.only_container());
    let before = app.memory();
    let mut largest = before;
    let mut too_long = Vec::new();
    let mut shown = 0;
    // Returns how long the page is held by one stream.
    let mut hold = |content: &str| {
        shown += 1;
        fs::write(&file, content).unwrap();
        // Not through the page, which would have megabytes to clear away.
        app.engine
            .docker(&["cp", file.to_str().unwrap(), &stream])
            .unwrap();
        let watch = Watch::begin(&app);
        // Without what the shell would show of it, so that only the stream is measured. The terminal answers what it is
        // once all before has been taken in, in seven bytes.
        let end = format!("end{shown}");
        app.type_line(&format!(
            "printf '\\033]8;;\\007\\033c'; stty -icanon -echo; cat stream; printf '\\033[c'; head -c 7 > {end}; stty sane"
        ));
        wait_for_file(&app, &id, &end);
        app.draw();
        let took = watch.end();
        largest = largest.max(app.memory());
        took
    };
    for (what, content) in streams() {
        let mut took = hold(&content);
        figure(&format!("the page held by {what}, ms"), took.as_millis());
        // What else the machine does only adds to it, so that the least of three is the stream's own.
        for _ in 0..2 {
            if took > HELD {
                took = took.min(hold(&content));
                figure(
                    &format!("the page held by {what}, at least, ms"),
                    took.as_millis(),
                );
            }
        }
        if took > HELD {
            too_long.push((what, took));
        }
    }
    figure(
        "memory of the app before and during the streams, MB",
        format!("{} and {}", before >> 20, largest >> 20),
    );
    assert!(too_long.is_empty(), "{too_long:?}");
    assert!(largest < before + GROWTH, "{before} bytes became {largest}");
}

#[test]
fn a_flood_on_the_agents_standard_error_does_not_fill_the_app() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("stderr");
    let before = app.memory();
    let flood = "
        for p in /proc/[0-9]*; do
            tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^/.cove/agent connect' || continue
            dd if=/dev/zero of=$p/fd/2 bs=1048576 count=300 2>/dev/null
        done
        echo > flooded
    ";
    write(&app, &id, "/workspace/flood.sh", flood.as_bytes());
    app.type_line("sh flood.sh");
    wait_for_file(&app, &id, "flooded");
    let after = app.memory();
    figure(
        "memory of the app before and after a flood on standard error, MB",
        format!("{} and {}", before >> 20, after >> 20),
    );
    assert!(after < before + GROWTH, "{before} bytes became {after}");
    app.type_line("echo > alive");
    wait_for_file(&app, &id, "alive");
}

#[test]
fn a_file_made_in_the_terminal_is_in_the_tree_without_a_refresh() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.ready_session("tree");
    app.type_line("echo hello > made-here.txt");
    app.wait_and_press_file("made-here.txt");
    app.window
        .wait_text("[data-testid=viewer] .cm-content", SOON, |text| {
            text == "hello\n" || text == "hello"
        })
        .unwrap();
    app.type_line("sleep 2; mv made-here.txt moved.txt");
    app.wait_and_press_file("moved.txt");
    // The driver takes a text that is cut short for none.
    let script = "return document.querySelector('[data-testid=files-as-of]').textContent";
    let said = app.window.execute(script, &[]).unwrap();
    assert!(said.as_str().unwrap().contains(':'), "{said}");
    app.picture("tree-as-of");
}

/// Files that are odd in name, size or content: each with how its name shows, and what then shows where.
fn odd_files() -> Vec<(
    &'static str,
    &'static str,
    Vec<u8>,
    &'static str,
    &'static str,
)> {
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bomb.extend([23_000_u32.to_be_bytes(), 23_000_u32.to_be_bytes()].concat());
    bomb.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let text = b"text\n".to_vec();
    let mut log = b"all is well\n".repeat(5_000);
    log[6] = 0xff;
    vec![
        (
            "constructor",
            "constructor",
            text.clone(),
            "[data-testid=viewer] .cm-content",
            "text",
        ),
        (
            "x.__proto__",
            "x.__proto__",
            text.clone(),
            "[data-testid=viewer] .cm-content",
            "text",
        ),
        (
            "a\u{3164}b",
            "a⟨U+3164⟩b",
            text,
            "[data-testid=viewer] .cm-content",
            "text",
        ),
        (
            "bomb.png",
            "bomb.png",
            bomb,
            "[data-testid=picture-note]",
            "23,000 × 23,000",
        ),
        (
            "latin.txt",
            "latin.txt",
            b"Gr\xfc\xdfe aus K\xf6ln".to_vec(),
            "[data-testid=viewer] .cm-content",
            "Grüße aus Köln",
        ),
        (
            "one-bad-byte.log",
            "one-bad-byte.log",
            log,
            "[data-testid=viewer] .cm-content",
            "all is well",
        ),
        (
            "zeros.bin",
            "zeros.bin",
            vec![0; 3 << 20],
            "[data-testid=binary-note]",
            "not text",
        ),
        (
            "one-line.txt",
            "one-line.txt",
            vec![b'x'; 2 << 20],
            "[data-testid=viewer] .cm-content",
            "xxx",
        ),
        (
            "marks.txt",
            "marks.txt",
            format!("a{}", "\u{301}".repeat(500_000)).into_bytes(),
            "[data-testid=viewer] .cm-content",
            "a",
        ),
        (
            "deep.json",
            "deep.json",
            vec![b'['; 1 << 20],
            "[data-testid=viewer] .cm-content",
            "[[",
        ),
    ]
}

#[test]
fn a_file_shows_as_what_it_is_however_it_is_called_or_encoded() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("files");
    let files = odd_files();
    for (name, _, content, _, _) in &files {
        write(&app, &id, &format!("/workspace/{name}"), content);
    }
    app.window.click("[data-testid=refresh-files]").unwrap();
    let mut too_long = Vec::new();
    for (name, shown, _, selector, expected) in &files {
        let watch = Watch::begin(&app);
        app.wait_and_press_file(shown);
        app.window
            .wait_text(selector, SOON, |said| said.contains(expected))
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        app.draw();
        let took = watch.end();
        app.picture(&format!("file-{name}"));
        figure(
            &format!("the page held by the file {name}, ms"),
            took.as_millis(),
        );
        if took > HELD {
            too_long.push((*name, took));
        }
    }
    app.wait_and_press_file("latin.txt");
    let said = app.window.text("[data-testid=charset]").unwrap();
    assert!(said.contains("windows-1252 (recognised)"), "{said}");
    assert!(!app.window.has("[data-testid=part-failed]").unwrap());
    let prototype = app
        .window
        .execute("return Object.keys(Object.prototype)", &[])
        .unwrap();
    assert_eq!(prototype, json!([]));
    assert!(too_long.is_empty(), "{too_long:?}");
}

/// Pastes as the system does, by an event on what has the focus.
fn paste(app: &App, text: &str) {
    let script = "
        const data = new DataTransfer();
        data.setData('text/plain', arguments[0]);
        const area = document.querySelector('[data-testid=terminal]:not([hidden]) textarea');
        area.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
    ";
    app.window.execute(script, &[json!(text)]).unwrap();
}

#[test]
fn nothing_pasted_runs_before_the_user_says_so() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("paste");
    // A shell that knows no bracketed paste.
    app.type_line("exec busybox sh");
    app.type_line("echo > there");
    wait_for_file(&app, &id, "there");
    paste(&app, "echo one > pasted1\n echo two > pasted2\n");
    app.window
        .wait_for("[data-testid=paste-dialog]", SOON)
        .unwrap();
    app.settle();
    app.picture("paste");
    let said = app.window.text("[data-testid=paste-dialog]").unwrap();
    assert!(
        said.contains("each line runs at once") && said.contains("echo two > pasted2"),
        "{said}"
    );
    let missing = app.invoke(
        "read_file",
        &json!({"id": id, "path": "/workspace/pasted1"}),
    );
    assert_eq!(missing["error"], "FILE_NOT_FOUND", "{missing}");
    app.press("[data-testid=confirm]");
    wait_for_file(&app, &id, "pasted2");

    // A program that knows a paste gets it in brackets that the paste cannot close.
    app.type_line(
        "stty -echo raw; printf '\\033[?2004h'; head -c 40 > bracketed; stty sane; echo > end",
    );
    app.window
        .wait("the program's wish for brackets", SOON, |_| {
            let answer = app.invoke(
                "read_file",
                &json!({"id": id, "path": "/workspace/bracketed"}),
            );
            Ok((answer["ok"] == true).then_some(()))
        })
        .unwrap();
    let rest = "const [done] = arguments; setTimeout(() => done(true), 500)";
    app.window.execute_async(rest, &[]).unwrap();
    paste(&app, "safe\u{1b}[201~\r\u{9b}201~touch x\r1234567890");
    wait_for_file(&app, &id, "end");
    let answer = app.invoke(
        "read_file",
        &json!({"id": id, "path": "/workspace/bracketed"}),
    );
    let expected = "\u{1b}[200~safe[201~\r201~touch x\r1234567890";
    assert!(
        answer["content"].as_str().unwrap().starts_with(expected),
        "{answer}"
    );
}

#[test]
fn a_link_of_a_program_shows_where_it_leads_and_opens_with_control_alone() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.ready_session("links");
    app.type_line("clear; printf '\\033]8;;https://example.com/evil\\033\\\\https://good.test\\033]8;;\\033\\\\\\n'; echo > end");
    wait_for_file(&app, &id, "end");
    // A pointer over the first cells of the second line of the screen or, after `clear`, of the first.
    let events = "
        const [kind, control] = arguments;
        const rows = [...document.querySelectorAll('[data-testid=terminal]:not([hidden]) .xterm-rows > div')];
        const row = rows.find((row) => row.textContent.includes('https://good.test'));
        if (!row) return false;
        const box = row.getBoundingClientRect();
        const at = { clientX: box.left + 30, clientY: box.top + box.height / 2, bubbles: true, ctrlKey: control, button: 0 };
        const screen = document.querySelector('[data-testid=terminal]:not([hidden]) .xterm-screen');
        screen.dispatchEvent(new MouseEvent(kind, at));
        return true;
    ";
    app.window
        .wait("the address of the link", SOON, |window| {
            window.execute(events, &[json!("mousemove"), json!(false)])?;
            Ok(window.has("[data-testid=link-address]")?.then_some(()))
        })
        .unwrap();
    let said = app.window.text("[data-testid=link-address]").unwrap();
    assert!(said.contains("https://example.com/evil"), "{said}");
    app.picture("link");
    let opened = |app: &App| -> Vec<Value> {
        let asked = app.recorded().asked;
        let opens = asked
            .into_iter()
            .filter(|asked| asked.command == "plugin:opener|open_url");
        opens.map(|asked| asked.parameters).collect()
    };
    for kind in ["mousedown", "mouseup"] {
        app.window
            .execute(events, &[json!(kind), json!(false)])
            .unwrap();
    }
    assert_eq!(opened(&app), Vec::<Value>::new());
    for kind in ["mousedown", "mouseup"] {
        app.window
            .execute(events, &[json!(kind), json!(true)])
            .unwrap();
    }
    let opened = opened(&app);
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!(opened[0]["url"], "https://example.com/evil", "{opened:?}");
}

#[test]
fn a_program_that_asks_for_the_mouse_in_the_old_way_hears_it() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("mouse");
    app.type_line("stty -echo raw; printf '\\033[?1000h'; echo > asked; head -c 6 > mouse; printf '\\033[?1000l'; stty sane; echo > end");
    wait_for_file(&app, &id, "asked");
    let rest = "const [done] = arguments; setTimeout(() => done(true), 500)";
    app.window.execute_async(rest, &[]).unwrap();
    app.window.click("[data-testid=terminal]").unwrap();
    wait_for_file(&app, &id, "end");
    let answer = app.invoke(
        "read_file",
        &json!({"id": id, "path": "/workspace/mouse", "charset": "windows-1252"}),
    );
    let content = answer["content"].as_str().unwrap();
    assert!(content.starts_with("\u{1b}[M "), "{answer}");
}

#[test]
fn the_window_stays_on_its_own_page() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let address = app.window.driver().url().unwrap();
    app.window
        .execute(
            "window.__same = true; location.href = 'https://example.org/'",
            &[],
        )
        .unwrap();
    app.window
        .execute("location.href = 'data:text/html,elsewhere'", &[])
        .unwrap();
    let form = "
        const form = document.createElement('form');
        form.action = 'https://example.org/';
        document.body.append(form);
        form.submit();
    ";
    app.window.execute(form, &[]).unwrap();
    let rest = "const [done] = arguments; setTimeout(() => done(true), 1000)";
    app.window.execute_async(rest, &[]).unwrap();
    assert_eq!(app.window.driver().url().unwrap(), address);
    assert_eq!(
        app.window.execute("return window.__same", &[]).unwrap(),
        true
    );
    assert_eq!(app.invoke("list_sessions", &json!({}))["ok"], true);
}
