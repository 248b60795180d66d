//! Something in a session's container answers in the agent's place: whatever it says about files, the page goes on,
//! the app stays small, and what cannot be is not shown.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cove_agent::protocol::{Call, Decoder};
use cove_agent::streams::{Event, PREFACE, StreamId, Streams};
use serde_json::{Value, json};

use crate::app::{App, SOON, figure};
use crate::held::{HELD, Watch};

/// How much the app may grow over all answers.
const GROWTH: u64 = 50 << 20;

/// Stands in for the agent where files are asked for: it hands on to whoever holds the pipes.
const STAND_IN: &str = r#"
    mkfifo -m 666 /.cove/asked /.cove/answers
    mv /.cove/agent /.cove/agent.real
    cat > /.cove/agent <<'END'
#!/bin/sh
[ "$1" = connect ] || exec /.cove/agent.real "$@"
exec 3<&0
cat <&3 > /.cove/asked &
exec cat /.cove/answers
END
    chmod 755 /.cove/agent
    for p in /proc/[0-9]*; do
        tr '\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^/.cove/agent connect' && kill -9 ${p#/proc/}
    done
    true
"#;

/// What is said to be in the workspace, as JSON.
type Entries = Arc<Mutex<String>>;

struct FalseAgent {
    bridge: Child,
    entries: Entries,
}

impl FalseAgent {
    /// Takes the agent's place in the only session that there is.
    fn take_over(app: &App) -> Self {
        let engine = &app.engine;
        let container = app.only_container();
        engine
            .docker(&["exec", "--user", "0", &container, "sh", "-c", STAND_IN])
            .unwrap();
        // Opened for both, a pipe has no end: the agent may be called again.
        let pipes = "exec 3<&0; cat <> /.cove/asked & exec cat <&3 1<> /.cove/answers";
        let mut bridge = Command::new("docker")
            .args([
                "--host",
                engine.host(),
                "exec",
                "--interactive",
                "--user",
                "0",
            ])
            .args([&container, "sh", "-c", pipes])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (asked, answers) = (bridge.stdout.take().unwrap(), bridge.stdin.take().unwrap());
        let entries = Entries::default();
        let said = Arc::clone(&entries);
        // It ends with the pipes.
        thread::spawn(move || serve(asked, answers, &said));
        Self { bridge, entries }
    }

    /// Lets the agent have its place back.
    fn leave(mut self, app: &App) {
        let container = app.only_container();
        let script = "mv /.cove/agent.real /.cove/agent && pkill -f /.cove/answers; true";
        let command = ["exec", "--user", "0", &container, "sh", "-c", script];
        app.engine.docker(&command).unwrap();
        // Gone already, with the pipe.
        let _ = self.bridge.kill();
    }

    fn say(&self, entries: &Value) {
        *self.entries.lock().unwrap() = entries.to_string();
    }
}

impl Drop for FalseAgent {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.bridge.kill();
        let _ = self.bridge.wait();
    }
}

fn serve(mut asked: impl Read, mut answers: impl Write, entries: &Mutex<String>) -> Option<()> {
    let (mut streams, mut calls) = (Streams::agent(), HashMap::new());
    let mut waiting: HashMap<StreamId, (Vec<u8>, usize)> = HashMap::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = asked.read(&mut bytes).ok()?;
        let piece = bytes.get(..count).filter(|piece| !piece.is_empty())?;
        // Whoever connects anew begins anew.
        if piece.starts_with(&PREFACE) {
            (streams, calls) = (Streams::agent(), HashMap::new());
            waiting.clear();
        }
        for event in streams.receive(piece).ok()? {
            match event {
                Event::Opened(id) => drop(calls.insert(id, Decoder::<Call>::new())),
                Event::Arrived(id, bytes) => {
                    streams.consume(id, bytes.len());
                    // What follows a call is typed into a terminal.
                    let Some(decoder) = calls.get_mut(&id) else {
                        continue;
                    };
                    decoder.push(&bytes);
                    if let Some(frame) = decoder.next_frame().ok()? {
                        calls.remove(&id);
                        waiting.insert(id, (answer(&frame.header, entries), 0));
                    }
                }
                Event::Finished(_) => {}
                Event::Reset(id) => drop(waiting.remove(&id)),
            }
        }
        let mut out = Vec::new();
        loop {
            for (id, (answer, sent)) in &mut waiting {
                *sent += streams.send(*id, answer.get(*sent..)?);
            }
            waiting.retain(|id, (answer, sent)| {
                let is_sent = *sent == answer.len();
                if is_sent {
                    streams.finish(*id);
                }
                !is_sent
            });
            streams.fetch(&mut out, 1 << 20);
            if out.is_empty() {
                break;
            }
            answers.write_all(&out).ok()?;
            out.clear();
        }
        answers.flush().ok()?;
    }
}

/// Returns the frame that answers a call.
fn answer(call: &Call, entries: &Mutex<String>) -> Vec<u8> {
    let (reply, body) = match call {
        Call::Hello { protocol } => (
            json!({"kind": "hello", "protocol": protocol, "agent_version": "0", "uid": 0, "gid": 0,
                "user": null, "workspace_writable": true}),
            Vec::new(),
        ),
        Call::List { .. } => (
            json!({"kind": "list", "entries": "ENTRIES", "truncated": false}),
            Vec::new(),
        ),
        // Two megabytes were asked for.
        Call::Read { .. } => (
            json!({"kind": "read", "size": 16 << 20, "truncated": false, "revision": "0"}),
            vec![b'A'; 16 << 20],
        ),
        Call::AttachTerminal { .. } => (
            json!({"kind": "attach_terminal", "from": u64::MAX, "written": 0, "typed": u64::MAX}),
            Vec::new(),
        ),
        _ => (json!({"kind": "create"}), Vec::new()),
    };
    let header = json!({"result": {"Ok": reply}}).to_string();
    let header = header.replace("\"ENTRIES\"", &entries.lock().unwrap());
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    [
        &length(4 + header.len() + body.len())[..],
        &length(header.len()),
        header.as_bytes(),
        &body,
    ]
    .concat()
}

fn entry(name: &str, path: &str, kind: &str) -> Value {
    json!({"name": name, "path": path, "kind": kind, "size": 1, "modified_ms": 0, "mode": 0o644})
}

fn one_file() -> Value {
    json!([entry("hello", "/workspace/hello", "file")])
}

/// As many as are asked for, each as long as a name can be.
fn a_full_directory() -> Value {
    let name = |n: usize| format!("{n}-{}", "e\u{301}".repeat(83));
    let entries = (0..10_000).map(|n| entry(&name(n), &format!("/workspace/{}", name(n)), "dir"));
    entries.collect()
}

/// What cannot be in the workspace, and how each is called.
fn impossible() -> Vec<(&'static str, Value)> {
    let file = |name: &str| entry(name, &format!("/workspace/{name}"), "file");
    vec![
        (
            "130,000 entries for 10,000",
            (0..130_000).map(|n| file(&format!("f{n}"))).collect(),
        ),
        (
            "a name of 12 MB",
            json!([entry(&"x".repeat(12_000_000), "/workspace/x", "file")]),
        ),
        (
            "a directory that is in itself",
            json!([entry("again", "/workspace", "dir")]),
        ),
        (
            "two entries with one path",
            json!([file("same"), file("same")]),
        ),
        (
            "names of every object",
            json!([
                entry("__proto__", "__proto__", "dir"),
                entry("constructor", "constructor", "dir")
            ]),
        ),
        (
            "a name that leads elsewhere",
            json!([entry("README.md", "/workspace/.secret", "file")]),
        ),
    ]
}

/// Returns the names in the tree.
fn shown(app: &App) -> Vec<String> {
    let script = "
        const tree = document.querySelector('[data-testid=file-tree]');
        return [...tree.querySelectorAll('.name')].map((name) => name.textContent);
    ";
    serde_json::from_value(app.window.execute(script, &[]).unwrap()).unwrap()
}

#[test]
fn whatever_answers_in_the_agents_place_the_page_goes_on_and_the_app_stays_small() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let id = app.ready_session("false-agent");
    let agent = FalseAgent::take_over(&app);
    let mut too_long = Vec::new();
    let mut judge = |what: &str, watch: Watch<'_>| {
        app.draw();
        let took = watch.end();
        figure(&format!("the page held by {what}, ms"), took.as_millis());
        if took > HELD {
            too_long.push((what.to_owned(), took));
        }
    };
    let refresh = || app.window.click("[data-testid=refresh-files]").unwrap();
    let wait = |what: &str, fits: fn(&[String]) -> bool| {
        let outcome = app
            .window
            .wait(what, SOON, |_| Ok(fits(&shown(&app)).then_some(())));
        outcome.unwrap_or_else(|error| panic!("{error:#}\nthe tree: {:?}", shown(&app)));
    };
    agent.say(&one_file());
    // It is taken for the agent, once the app has called it again.
    app.window
        .wait("the false agent's file", Duration::from_secs(40), |_| {
            refresh();
            thread::sleep(Duration::from_millis(200));
            Ok((shown(&app) == ["hello"]).then_some(()))
        })
        .unwrap();
    let before = app.memory();
    let mut largest = before;

    for (what, entries) in impossible() {
        agent.say(&one_file());
        refresh();
        wait("the one file", |names| names == ["hello"]);
        agent.say(&entries);
        let watch = Watch::begin(&app);
        refresh();
        app.window
            .wait_for("[data-testid=file-tree] .note.bad", SOON)
            .unwrap();
        largest = largest.max(app.memory());
        judge(what, watch);
        app.picture(&format!("false-agent-{what}"));
    }

    agent.say(&a_full_directory());
    let watch = Watch::begin(&app);
    refresh();
    wait("a full directory", |names| names.len() > 5);
    judge("a full directory", watch);
    largest = largest.max(app.memory());
    app.picture("false-agent-full");

    agent.say(&one_file());
    refresh();
    wait("the one file", |names| names == ["hello"]);
    let watch = Watch::begin(&app);
    app.window
        .click("[data-testid=file-tree] [role=treeitem]")
        .unwrap();
    app.window.wait_for("[data-testid=editor]", SOON).unwrap();
    let answer = app.invoke("read_file", &json!({"id": id, "path": "/workspace/hello"}));
    judge("16 MB for 2", watch);
    largest = largest.max(app.memory());
    app.picture("false-agent-16-mb");
    assert_eq!(answer["ok"], false, "{:.300}", answer.to_string());

    figure(
        "memory of the app before and during false answers, MB",
        format!("{} and {}", before >> 20, largest >> 20),
    );
    assert!(too_long.is_empty(), "{too_long:?}");
    assert!(largest < before + GROWTH, "{before} bytes became {largest}");
    assert!(!app.window.has("[data-testid=part-failed]").unwrap());

    // Once the agent is back, the shell is there as it was.
    agent.leave(&app);
    app.type_line("exit 3");
    app.window
        .wait_text("[data-testid=terminal-exit]", SOON, |said| {
            said.contains('3')
        })
        .unwrap();
}
