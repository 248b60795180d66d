//! The terminal: what is typed arrives, and what is written arrives whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{App, READY, SOON, Shell, figure, timed};
use crate::keys::{CONTROL, ENTER};

const QUESTION: &str = "[data-testid=close-terminal]";
const TAB: &str = "[role=tablist][aria-label=Terminals] [role=tab]";
const NOTICE: &str = "[data-testid=copy-notice]";

#[test]
fn what_is_typed_is_run_and_what_is_written_is_shown() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("typing");
    app.type_line("printf '%s-' a b c; echo");
    app.wait_for_screen("what the command writes", |screen| {
        screen.lines().any(|line| line == "a-b-c-")
    });

    app.type_line("printf 'caf\\303\\251 \\346\\227\\245\\346\\234\\254 \\360\\237\\232\\200|\\n'");
    app.wait_for_screen("characters beyond ASCII", |screen| {
        screen.lines().any(|line| line == "café 日本 🚀|")
    });
    // The terminal says where its cursor is: behind two cells for each, as programs reckon.
    app.type_line("IFS=';' read -rs -d R -p \"$(printf '\\r\\346\\227\\245\\360\\237\\232\\200\\360\\237\\247\\252\\033[6n')\" row column; echo; echo \"col=$column\"");
    app.wait_for_screen("the width of characters", |screen| {
        screen.lines().any(|line| line == "col=7")
    });

    app.type_line("printf '\\033[31mRED\\033[0m \\033[1;38;5;39mSKY\\033[0m\\n'");
    app.wait_for_screen("the colours' line", |screen| {
        screen.lines().any(|line| line == "RED SKY")
    });
    let styles = "
        const spans = [...document.querySelectorAll('[data-testid=terminal]:not([hidden]) .xterm-rows span')];
        return ['RED', 'SKY'].map((word) => spans.find((span) => span.textContent === word)?.className ?? '');
    ";
    let styles = app.window.execute(styles, &[]).unwrap();
    assert!(
        styles[0].as_str().unwrap().contains("xterm-fg-1"),
        "{styles}"
    );
    assert!(
        styles[1].as_str().unwrap().contains("xterm-fg-39"),
        "{styles}"
    );
    assert!(
        styles[1].as_str().unwrap().contains("xterm-bold"),
        "{styles}"
    );
    app.picture("terminal");
}

#[test]
fn control_c_stops_what_runs() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("interrupt");
    // The word is put together by the shell, so that what was typed does not look like it.
    app.type_line("echo sta''rted; sleep 1000");
    app.wait_for_screen("the command's start", |screen| {
        screen.lines().any(|line| line == "started")
    });
    app.window.driver().press(&[CONTROL], "c").unwrap();
    app.type_line("echo st''opped $?");
    let screen = app.wait_for_screen("the command's end", |screen| {
        screen.lines().any(|line| line.starts_with("stopped"))
    });
    assert!(screen.lines().any(|line| line == "stopped 130"), "{screen}");
}

#[test]
fn the_terminal_is_as_large_as_its_pane() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("sizes");
    let rows = "return document.querySelectorAll('[data-testid=terminal]:not([hidden]) .xterm-rows > div').length";
    let size = |what: &str| -> (u64, u64) {
        app.type_line(&format!("echo {what}=$(stty size)"));
        let is_answer = |line: &str| line.starts_with(&format!("{what}=")) && !line.contains('$');
        let screen = app.wait_for_screen("the size", |screen| screen.lines().any(is_answer));
        let line = screen.lines().find(|line| is_answer(line)).unwrap();
        let (rows, columns) = line.split_once('=').unwrap().1.split_once(' ').unwrap();
        (rows.parse().unwrap(), columns.parse().unwrap())
    };
    let before = size("before");
    assert_eq!(app.window.execute(rows, &[]).unwrap(), before.0);

    app.window.driver().resize(960, 640).unwrap();
    app.window
        .wait("a smaller terminal", SOON, |window| {
            Ok(window
                .execute(rows, &[])?
                .as_u64()
                .filter(|rows| *rows < before.0))
        })
        .unwrap();
    let after = size("after");
    assert!(
        after.0 < before.0 && after.1 < before.1,
        "{before:?} became {after:?}"
    );
    assert_eq!(app.window.execute(rows, &[]).unwrap(), after.0);
    app.picture("small-window");
}

#[test]
fn fifty_megabytes_arrive_complete_and_unaltered() {
    const SIZE: u64 = 50_000_000;
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.create_by_command(None);
    app.expect_ready(&id);
    let shell = Shell::open(&app, &id);
    // But for what begins a sequence, also as UTF-8: among so many, one or the other would ask for more than there may be, and
    // be held to the bound, and one that is not whole at the end would be waited for.
    shell.run(&format!(
        "head -c {SIZE} /dev/urandom | tr '\\033\\302' xx > random"
    ));
    let expected = shell.run("sha256sum random | cut -d' ' -f1");

    // Output processing would turn \n into \r\n: the bytes are to be those of the file.
    let begin = app
        .window
        .execute("return window.__shell.length", &[])
        .unwrap();
    let ((), took) = timed(|| {
        shell.write("stty -opost; printf '\\001\\002BEGIN'; cat random; printf 'END\\003\\004'; stty opost\n");
        let arrived = "
            const { bytes, length } = window.__shell;
            return length > arguments[0] + arguments[1] && bytes[length - 2] === 3 && bytes[length - 1] === 4;
        ";
        let outcome = app.window.wait("the end of the output", READY, |window| {
            Ok((window.execute(arrived, &[begin.clone(), json!(SIZE)])? == true).then_some(()))
        });
        outcome.unwrap_or_else(|error| {
            panic!(
                "{error:#}: {} bytes",
                app.window
                    .execute("return window.__shell.length", &[])
                    .unwrap()
            )
        });
    });
    let digest = "
        const [begin, done] = arguments;
        const { bytes, length } = window.__shell;
        const received = bytes.subarray(begin, length);
        const word = (at, text) => new TextDecoder().decode(received.subarray(at, at + text.length)) === text;
        const edges = { begins: word(0, '\\x01\\x02BEGIN'), ends: word(received.length - 5, 'END\\x03\\x04') };
        const content = received.slice(7, received.length - 5);
        crypto.subtle.digest('SHA-256', content).then((hash) => {
            const hex = [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
            done({ ...edges, size: content.length, hex });
        }, (error) => done(String(error)));
    ";
    let received = app.window.execute_async(digest, &[begin]).unwrap();
    assert_eq!(
        received,
        json!({"begins": true, "ends": true, "size": SIZE, "hex": expected.trim()})
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = SIZE as f64 / 1e6 / took.as_secs_f64();
    figure("50 MB to the web view, MB/s", format!("{rate:.1}"));
}

#[test]
fn endless_output_neither_freezes_the_window_nor_grows_its_memory() {
    const WATCHED: Duration = Duration::from_secs(5);
    const GROWTH: u64 = 100 << 20;
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("flood");
    let before = app.memory();
    app.type_line("yes 'the same line, again and again and again'");
    let (mut slowest, mut largest) = (Duration::ZERO, before);
    let start = std::time::Instant::now();
    while start.elapsed() < WATCHED {
        let (answer, took) = timed(|| {
            app.window
                .execute_async(
                    "const [done] = arguments; requestAnimationFrame(() => done(true))",
                    &[],
                )
                .unwrap()
        });
        assert_eq!(answer, true);
        slowest = slowest.max(took);
        largest = largest.max(app.memory());
    }
    app.picture("flood");
    figure(
        "slowest answer of the page during `yes`, ms",
        slowest.as_millis(),
    );
    figure(
        "memory of the app before and during `yes`, MB",
        format!("{} and {}", before >> 20, largest >> 20),
    );
    assert!(
        slowest < Duration::from_secs(1),
        "the page took {slowest:?} to answer"
    );
    assert!(largest < before + GROWTH, "{before} bytes became {largest}");

    // And it can be stopped.
    app.window.driver().press(&[CONTROL], "c").unwrap();
    app.window
        .driver()
        .press(&[], &format!("echo over > over.txt{ENTER}"))
        .unwrap();
    app.window
        .wait("the shell after the flood", SOON, |_| {
            let answer = app.invoke(
                "read_file",
                &json!({"id": id, "path": "/workspace/over.txt"}),
            );
            Ok((answer["content"] == "over\n").then_some(()))
        })
        .unwrap();
}

#[test]
fn a_terminal_that_ends_says_so_and_its_commands_are_refused() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("exit");
    app.type_line("exit 7");
    let said = app
        .window
        .wait_text("[data-testid=terminal-exit]", SOON, |text| !text.is_empty())
        .unwrap();
    assert!(said.contains('7'), "{said}");
    app.picture("terminal-exit");
    let answer: Value = app.invoke(
        "write_terminal",
        &json!({"id": id, "terminal_id": "gone", "data": "x"}),
    );
    assert_eq!(answer["error"], "TERMINAL_NOT_FOUND", "{answer}");
}

#[test]
fn a_session_full_of_processes_says_so_and_its_user_can_end_them_all() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let mut settings = app.invoke("read_settings", &json!({}))["settings"].take();
    settings["pids_limit"] = json!(48);
    let written = app.invoke("write_settings", &json!({ "settings": settings }));
    assert_eq!(written["ok"], true, "{written}");
    let id = app.ready_session("full");
    app.type_line("while sleep 600 & do :; done 2> /dev/null; echo fu''ll");
    let notice = "[data-testid=terminal]:not([hidden]) [data-testid=process-limit]";
    // The shell itself tries again for some seconds before it gives up.
    app.window
        .wait("a terminal for which there is no room", READY, |window| {
            app.press("[data-testid=new-terminal]");
            let shown = window.wait_for(notice, std::time::Duration::from_secs(2));
            Ok(shown.ok().map(drop))
        })
        .unwrap();
    let said = app
        .window
        .wait_text(notice, SOON, |text| !text.is_empty())
        .unwrap();
    assert!(said.contains("48 processes"), "{said}");
    app.picture("process-limit");

    // What is open goes on, and so do the files.
    let listed = app.invoke("list_dir", &json!({"id": id, "path": "/workspace"}));
    assert_eq!(listed["ok"], true, "{listed}");
    app.press("[data-testid=terminal]:not([hidden]) [data-testid=end-processes]");
    app.window
        .wait_for("[data-testid=end-processes-dialog]", SOON)
        .unwrap();
    app.settle();
    app.picture("end-processes");
    app.press("[data-testid=end-processes-dialog] [data-testid=confirm]");
    // The terminal that had no room opens by itself.
    let opened = "[data-testid=terminal]:not([hidden])[data-terminal-id][data-exited=false]";
    app.window.wait_for(opened, READY).unwrap();
    // It has the focus: nobody has to click.
    let line = format!("echo the''re is room{ENTER}");
    app.window.driver().press(&[], &line).unwrap();
    app.wait_for_screen("a line of the new terminal", |screen| {
        screen.lines().any(|line| line == "there is room")
    });
}

#[test]
fn where_sudo_is_refused_it_is_said_why_and_a_rebuild_allows_it() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.ready_session("sudo");
    // The image has no `sudo`; what is recognised is its sentence.
    app.type_line(
        "printf 'sudo: The \"no new %s\" flag is set, which prevents sudo from running as root.\\n' privileges",
    );
    app.window
        .wait_for("[data-testid=sudo-notice]", SOON)
        .unwrap();
    app.settle();
    app.picture("sudo-notice");
    app.press("[data-testid=allow-sudo]");
    app.window
        .wait_for("[data-testid=allow-sudo-dialog]", SOON)
        .unwrap();
    app.press("[data-testid=allow-sudo-dialog] [data-testid=confirm]");
    app.window
        .wait("the session as it was rebuilt", READY, |_| {
            let status = app.invoke("session_status", &json!({ "id": id }));
            let session = &status["session"];
            let is_it = status["ready"] == true && session["allow_privilege_gain"] == true;
            Ok(is_it.then_some(()))
        })
        .unwrap();
}

#[test]
fn a_terminal_that_fails_at_its_output_says_so_once_and_can_be_reopened() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("broken");
    let fault = "
        const real = String.fromCharCode;
        window.__mend = () => (String.fromCharCode = real);
        String.fromCharCode = (...codes) => {
            if (codes.includes(0x2603)) throw new Error('no such letter');
            return real(...codes);
        };
    ";
    app.window.execute(fault, &[]).unwrap();
    app.type_line("printf '\\033]2;\\342\\230\\203\\007'; exec sh");
    let said = app
        .window
        .wait_text("[data-testid=part-failed]", SOON, |said| !said.is_empty())
        .unwrap();
    assert!(
        said.contains("This terminal could not be shown: no such letter"),
        "{said}"
    );
    assert_eq!(app.window.count("[data-testid=part-failed]").unwrap(), 1);
    app.picture("terminal-failed");
    assert!(app.window.has("[data-testid=file-tree]").unwrap());

    app.window.execute("window.__mend()", &[]).unwrap();
    app.press("[data-testid=part-failed] button");
    app.wait_for_terminal();
    assert!(!app.window.has("[data-testid=part-failed]").unwrap());
    app.type_line("echo it goes on > on.txt");
    app.window
        .wait("the shell behind it", SOON, |_| {
            let answer = app.invoke("read_file", &json!({"id": id, "path": "/workspace/on.txt"}));
            Ok((answer["content"] == "it goes on\n").then_some(()))
        })
        .unwrap();
}

#[test]
fn a_tab_in_which_something_runs_is_closed_only_when_the_user_says_so() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    let id = app.ready_session("closing");
    let close = || {
        let press =
            "document.querySelector('[aria-label=Terminals] [data-testid=close-tab]').click()";
        app.window.execute(press, &[]).unwrap();
    };
    app.type_line("sleep 4000 & echo beg''un; sleep 5000");
    app.wait_for_screen("both programs", |screen| {
        screen.lines().any(|line| line == "begun")
    });
    let asked = || {
        app.window.wait_for(QUESTION, SOON).unwrap();
        let named = "return [...document.querySelectorAll('[data-testid=close-terminal] code')].map((code) => code.textContent)";
        app.window.execute(named, &[]).unwrap()
    };
    // The one in front comes first.
    app.window
        .wait("both programs", SOON, |_| {
            close();
            let named = asked();
            app.window.driver().press(&[], "\u{E00C}")?;
            app.window.wait_gone(QUESTION, SOON)?;
            Ok((named == json!(["sleep 5000", "sleep 4000"])).then_some(()))
        })
        .unwrap();
    assert!(app.window.has(TAB).unwrap());
    let container = format!("cove-{id}");
    let runs_sleep = || {
        let running = app.engine.docker(&["top", &container, "-eo", "pid,args"]);
        running.unwrap().contains("sleep 5000")
    };
    assert!(runs_sleep());
    close();
    asked();
    app.settle();
    app.picture("close-terminal");
    app.press("[data-testid=close-terminal] [data-testid=confirm]");
    app.window.wait_gone(TAB, SOON).unwrap();
    app.window
        .wait("the end of the programs", SOON, |_| {
            Ok((!runs_sleep()).then_some(()))
        })
        .unwrap();
    // A shell at its prompt is not asked about.
    app.press("[data-testid=new-terminal]");
    app.wait_for_terminal();
    app.type_line("echo id''le");
    app.wait_for_screen("the prompt", |screen| screen.contains("idle"));
    close();
    app.window.wait_gone(TAB, SOON).unwrap();
    assert!(!app.window.has(QUESTION).unwrap());
}

#[test]
fn a_program_copies_to_the_clipboard_only_when_the_user_lets_it() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.draw_readable_terminals();
    app.ready_session("copying");
    let listen = "
        window.__copied = [];
        navigator.clipboard.writeText = (text) => Promise.resolve(void window.__copied.push(text));
    ";
    app.window.execute(listen, &[]).unwrap();
    let copied = || app.window.execute("return window.__copied", &[]).unwrap();
    let copy = |text: &str| {
        app.type_line(&format!(
            "printf '\\033]52;c;%s\\a' $(printf '{text}' | base64)"
        ));
        app.window.wait_for(NOTICE, SOON).unwrap();
    };
    copy("first\\nsecond");
    app.settle();
    app.picture("copy-notice");
    assert_eq!(copied(), json!([]));
    app.press("[data-testid=allow-copy]");
    app.window.wait_gone(NOTICE, SOON).unwrap();
    assert_eq!(copied(), json!(["first\nsecond"]));
    copy("another");
    app.press("[data-testid=copy-notice] button:last-of-type");
    app.window.wait_gone(NOTICE, SOON).unwrap();
    // What is in the clipboard is told to nobody.
    app.type_line("printf '\\033]52;c;?\\a'; echo a''b");
    app.wait_for_screen("the end of the question", |screen| {
        screen.lines().any(|line| line == "ab")
    });
    let prompt = app.wait_for_screen("the prompt", |screen| screen.ends_with('$'));
    assert!(prompt.ends_with("\ndev@copying:/workspace$"), "{prompt}");
    assert_eq!(copied(), json!(["first\nsecond"]));
}
