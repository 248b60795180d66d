//! The built-in image: what it offers works, and its terminals begin as terminals do.

use crate::support::App;
use crate::terminals::Shell;

/// What each of these writes when it works, in a folder with a file `page` that holds the line `served`.
const TOOLS: [(&str, &str); 22] = [
    (
        "httpd -p 127.0.0.1:8080 -h . && wget -T 2 -q -O - http://127.0.0.1:8080/page",
        "served",
    ),
    ("wget -q -O - http://127.0.0.1:8080/page", "served"),
    // Nobody listens there.
    (
        "wget -T 2 -q -O - http://127.0.0.1:1/ 2> /dev/null; echo $?",
        "1",
    ),
    ("nohup sh -c 'echo goes on'", "goes on"),
    ("nohup no-such-program 2> /dev/null; echo $?", "127"),
    (
        "nohup sleep 5 & sleep 0.3; kill -HUP $!; sleep 0.3; kill -0 $! && echo survives",
        "survives",
    ),
    ("echo 'a b' | awk '{ print $2 }'", "b"),
    ("echo abc | sed s/b/X/", "aXc"),
    ("echo abc | grep -o b", "b"),
    ("tar -cf - page | tar -tf -", "page"),
    ("gzip < page | zcat", "served"),
    ("bzip2 < page | bzcat", "served"),
    (
        "printf served | sha256sum | cut -c1-8 | grep -c '^[0-9a-f]*$'",
        "1",
    ),
    ("find . -name page", "./page"),
    ("echo 1 2 | xargs -n1 echo | tail -n1", "2"),
    ("printf 'b\\na\\n' | sort | head -n1", "a"),
    ("sh -c 'timeout 1 sleep 5; echo $?' 2> /dev/null", "143"),
    ("date -u -d @0 +%Y", "1970"),
    ("echo '6 * 7' | bc", "42"),
    ("stat -c %s page", "7"),
    ("diff page page && echo same", "same"),
    ("bash -c 'x=(1 2 3); echo ${#x[@]}'", "3"),
];

/// Asks every tool what it does, and tells of those that crash.
const ASK_ALL: &str = "for tool in $(busybox --list) bash nohup; do \
     \"$tool\" --help < /dev/null > /dev/null 2>&1; code=$?; \
     if [ $code -ge 124 ]; then echo \"$tool $code\"; fi; done; echo asked";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_built_in_image_offers_works() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let run = |script: &str| {
        let script = format!("cd /tmp && echo served > page; {script}");
        app.exec(id, "dev", &["sh", "-c", &script])
    };
    assert_eq!(run(ASK_ALL), (true, "asked".to_owned()));
    for (script, expected) in TOOLS {
        assert_eq!(run(script), (true, expected.to_owned()), "{script}");
    }
}

/// Returns what a terminal has shown, without the sequences that move and colour it.
fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut visible = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            visible.push(c);
        }
    }
    visible
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_of_the_built_in_image_begins_with_its_prompt_and_edits_lines() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    let first = shell.until_seen(|bytes| {
        let shown = visible(bytes);
        shown.ends_with("$ ").then_some(shown)
    });
    let first = first.await;
    assert!(first.starts_with("dev@"), "{first:?}");
    assert_eq!(first.lines().count(), 1, "{first:?}");
    // It knows the terminal: what is typed in the middle moves the rest along, and a character of two bytes is one.
    let keys = "echo xé\u{1b}[D\u{1b}[D-\n".as_bytes();
    shell.terminal.write(keys).await.unwrap();
    shell.until_shown("\r-xé\r\n").await;
    shell.terminal.write(b"\x0c").await.unwrap();
    shell.until_shown("\u{1b}[H\u{1b}[2J").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_pasted_behind_a_short_job_in_the_background_end_no_shell() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    for round in 0..4 {
        let shell = Shell::open(&app, id).await;
        shell.until_shown("$ ").await;
        let pasted = format!("true &\necho line''_{round}\n");
        shell.terminal.write(pasted.as_bytes()).await.unwrap();
        shell.until_shown(&format!("line_{round}\r\n")).await;
        assert_eq!(shell.output_of("echo still''_here").await, "still_here\r\n");
    }
}
