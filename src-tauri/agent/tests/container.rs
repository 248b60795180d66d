//! The built agent as process 1 of a container that is made with `unshare`: a PID and a mount namespace
//! and a root directory of its own, but no engine. Needs root; skipped, with the reason, where that is
//! not permitted.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cove_agent::protocol::{self, Call, CallError, Decoder, Failure, Frame, Reply, Response};
use cove_agent::streams::{Event, StreamId, Streams};
use cove_agent::terminal::{Begins, End, Input, Output, Pane, Tab};

const PATIENCE: Duration = Duration::from_secs(10);

/// A container that is stopped when dropped. The root outlives it, for a second start.
struct Container {
    unshare: Child,
    /// Process 1, as the machine numbers it.
    init: u32,
}

/// Makes a root directory with the agent, an empty workspace and the programs of this machine.
fn root() -> Option<tempfile::TempDir> {
    let allowed = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "true",
        ])
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        let _ = writeln!(io::stderr(), "skipped: making namespaces is not permitted");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    for directory in ["proc", "usr", "dev", "etc", ".cove", "workspace"] {
        fs::create_dir(path.join(directory)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), path.join(name)).unwrap();
    }
    fs::write(
        path.join("etc/passwd"),
        "node:x:1000:1001::/home/node:/bin/sh\n",
    )
    .unwrap();
    fs::copy(env!("CARGO_BIN_EXE_cove-agent"), path.join(".cove/agent")).unwrap();
    Some(root)
}

impl Container {
    fn start(root: &Path, owner: &str) -> Self {
        Self::start_giving(root, owner, "all")
    }

    fn start_giving(root: &Path, owner: &str, give: &str) -> Self {
        let script = "mount --rbind /usr \"$1/usr\" && mount --rbind /dev \"$1/dev\" && mount -t proc proc \"$1/proc\" && exec chroot \"$1\" /.cove/agent init --owner \"$2\" --give \"$3\" --token once";
        let unshare = Command::new("unshare")
            .args([
                "--mount",
                // The mounts below must not reach the machine.
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(root)
            .args([owner, give])
            // As an engine starts it, for an image that sets nothing.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = eventually("process 1", || {
            let pid = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            command.starts_with(b"/.cove/agent\0").then_some(pid)
        });
        Self { unshare, init }
    }

    /// Runs a command as an engine's exec does, as `node`: its parent is outside of the container.
    fn exec(&self, command: &[&str]) -> Child {
        self.exec_as(["1000", "1001"], command)
    }

    fn exec_as(&self, [uid, gid]: [&str; 2], command: &[&str]) -> Child {
        Command::new("nsenter")
            .args(["--mount", "--pid", "--root", "--wd"])
            .args(["--setuid", uid, "--setgid", gid])
            .args(["--target", &self.init.to_string()])
            .arg("--")
            .args(command)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn call(&self, call: &Call) -> Result<Reply, CallError> {
        App::connect(self).call(call)
    }

    /// The processes in the container by their `/proc/PID/stat`.
    fn processes(&self) -> Vec<String> {
        let proc = PathBuf::from(format!("/proc/{}/root/proc", self.init));
        let entries = fs::read_dir(proc).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .collect()
    }

    /// Stops the container as an engine does, and returns the exit code and how long it took.
    fn stop(&mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        let pid = self.init.to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        (self.unshare.wait().unwrap().code(), begin.elapsed())
    }
}

/// An app that is connected to the daemon. Dropping it cuts the connection.
struct App {
    pipe: Child,
    streams: Streams,
}

impl App {
    fn connect(container: &Container) -> Self {
        let pipe = container.exec_as(["0", "0"], &["/.cove/agent", "connect"]);
        Self {
            pipe,
            streams: Streams::app(),
        }
    }

    fn send(&mut self) {
        let mut bytes = Vec::new();
        self.streams.fetch(&mut bytes, usize::MAX);
        self.pipe.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    /// Waits for what comes next; `None` at the end of the connection.
    fn hear(&mut self) -> Option<Vec<Event>> {
        self.send();
        let mut bytes = [0; 4096];
        let count = self.pipe.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
        let events = self.streams.receive(bytes.get(..count).unwrap()).unwrap();
        (count > 0).then_some(events)
    }

    fn ask(&mut self, call: &Call) -> StreamId {
        let stream = self.streams.open().unwrap();
        let request = protocol::encode(call, &[]).unwrap();
        assert_eq!(self.streams.send(stream, &request), request.len());
        stream
    }

    fn call(&mut self, call: &Call) -> Result<Reply, CallError> {
        let stream = self.ask(call);
        self.streams.finish(stream);
        let mut decoder = Decoder::<Response>::new();
        loop {
            let events = self.hear().unwrap();
            for event in events {
                match event {
                    Event::Arrived(of, bytes) if of == stream => decoder.push(&bytes),
                    Event::Finished(of) if of == stream => {
                        let Frame { header, .. } = decoder.next_frame().unwrap().unwrap();
                        assert!(decoder.is_between_frames());
                        return header.result;
                    }
                    _ => {}
                }
            }
        }
    }

    fn terminal(self, call: &Call) -> Shell {
        let mut shell = Shell {
            app: self,
            stream: None,
            decoder: Some(Decoder::new()),
            output: Decoder::new(),
            shown: String::new(),
            end: None,
            is_over: false,
        };
        shell.stream = Some(shell.app.ask(call));
        while shell.decoder.is_some() {
            assert!(shell.go_on(), "the terminal does not begin");
        }
        shell
    }

    fn open_terminal(self, id: &str) -> Shell {
        let id = id.to_owned();
        self.terminal(&Call::OpenTerminal {
            id,
            cols: 80,
            rows: 24,
            begins: None,
        })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It ends with its pipes. Nobody would take in what is left of it if its parent ended first.
        drop((self.pipe.stdin.take(), self.pipe.stdout.take()));
        let _ = self.pipe.wait();
    }
}

/// A terminal, and what it has shown that nobody has waited for.
struct Shell {
    app: App,
    stream: Option<StreamId>,
    decoder: Option<Decoder<Response>>,
    output: Decoder<Output>,
    shown: String,
    end: Option<End>,
    /// Whether nothing follows.
    is_over: bool,
}

impl Shell {
    fn send(&mut self, input: &Input, body: &[u8]) {
        let frame = protocol::encode(input, body).unwrap();
        let sent = self.app.streams.send(self.stream.unwrap(), &frame);
        assert_eq!(sent, frame.len());
        self.app.send();
    }

    fn type_in(&mut self, text: &str) {
        self.send(&Input::Bytes, text.as_bytes());
    }

    /// Hears more; `false` when there is no more.
    fn go_on(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let Some(events) = self.app.hear() else {
            self.is_over = true;
            return false;
        };
        for event in events {
            match event {
                Event::Arrived(_, bytes) => {
                    if let Some(decoder) = &mut self.decoder {
                        decoder.push(&bytes);
                        let Some(Frame { header, body }) = decoder.next_frame().unwrap() else {
                            self.app.streams.consume(self.stream.unwrap(), bytes.len());
                            continue;
                        };
                        header.result.unwrap();
                        self.shown += &String::from_utf8(body).unwrap();
                        self.output = self.decoder.take().unwrap().followed_by();
                    } else {
                        self.output.push(&bytes);
                    }
                    self.app.streams.consume(self.stream.unwrap(), bytes.len());
                    while let Some(Frame { header, body }) = self.output.next_frame().unwrap() {
                        match header {
                            Output::Bytes => self.shown += &String::from_utf8(body).unwrap(),
                            Output::End(end) => self.end = Some(end),
                        }
                    }
                }
                Event::Finished(_) | Event::Reset(_) | Event::Opened(_) => self.is_over = true,
            }
        }
        !self.is_over
    }

    /// Waits until this has been shown, and takes it for seen.
    fn await_output(&mut self, expected: &str) {
        let mut goes_on = true;
        loop {
            if let Some(at) = self.shown.find(expected) {
                self.shown.drain(..at + expected.len());
                return;
            }
            assert!(goes_on, "{:?} instead of {expected:?}", self.shown);
            goes_on = self.go_on();
        }
    }

    fn await_end(&mut self) -> End {
        while self.go_on() {}
        self.end.clone().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Gone already, if the test stopped it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} did not show up");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn hello() -> Call {
    Call::Hello {
        protocol: protocol::VERSION,
    }
}

#[test]
fn a_fresh_container_is_ready_and_its_workspace_belongs_to_the_user() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "node");
    let Ok(Reply::Hello(hello)) = container.call(&hello()) else {
        panic!("no hello")
    };
    assert_eq!(
        (hello.uid, hello.gid, hello.user.as_deref()),
        (1000, 1001, Some("node"))
    );
    assert!(hello.workspace_writable);
    assert_eq!(
        (hello.protocol, &*hello.agent_version),
        (protocol::VERSION, cove_agent::VERSION)
    );
    let workspace = fs::metadata(root.path().join("workspace")).unwrap();
    assert_eq!((workspace.uid(), workspace.gid()), (1000, 1001));
    for (name, mode) in [(".cove", 0o755), (".cove/state", 0o644)] {
        let found = fs::metadata(root.path().join(name)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, mode), "{name}");
    }
    assert_eq!(container.stop().0, Some(0));
}

#[test]
fn a_workspace_is_given_once_whatever_it_holds() {
    let Some(root) = root() else { return };
    let file = root.path().join("workspace/file");
    fs::write(&file, "").unwrap();
    let owner = || fs::metadata(&file).unwrap().uid();
    let mut container = Container::start(root.path(), "1000:1000");
    let Ok(Reply::Hello(hello)) = container.call(&hello()) else {
        panic!("no hello")
    };
    assert!(hello.workspace_writable);
    assert_eq!(owner(), 1000);
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    container.stop();
    let container = Container::start(root.path(), "1000:1000");
    assert!(container.call(&crate::hello()).is_ok());
    assert_eq!(owner(), 0, "what happened later stays");
}

#[test]
fn a_workspace_behind_a_link_is_given_as_any() {
    let Some(root) = root() else { return };
    fs::remove_dir(root.path().join("workspace")).unwrap();
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    symlink("elsewhere", root.path().join("workspace")).unwrap();
    let container = Container::start(root.path(), "node");
    let Ok(Reply::Hello(hello)) = container.call(&hello()) else {
        panic!("no hello")
    };
    assert!(hello.workspace_writable);
}

#[test]
fn a_failed_setup_is_told_and_the_next_start_is_judged_by_itself() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "ghost");
    let error = container.call(&hello()).unwrap_err();
    let message = "the image has no user `ghost`".to_owned();
    let user = "ghost".to_owned();
    assert_eq!(
        error,
        CallError {
            failure: Failure::NoUser { user },
            message
        }
    );
    assert_eq!(container.stop().0, Some(0));
    let container = Container::start(root.path(), "node");
    assert!(container.call(&hello()).is_ok());
}

#[test]
fn orphans_are_taken_in() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "");
    let mut parent = container.exec(&[
        "sh",
        "-c",
        "for _ in 1 2 3 4 5 6 7 8; do (sleep 0.1 &) ; done",
    ]);
    assert!(parent.wait().unwrap().success());
    assert!(container.processes().len() > 2, "the orphans run on");
    eventually("the end of all orphans", || {
        (container.processes().len() == 2).then_some(())
    });
}

#[test]
fn a_stop_is_quick_when_everything_goes() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "");
    let mut sleep = container.exec(&["sh", "-c", "echo up; exec sleep 60"]);
    await_line(&mut sleep, "up");
    // A prompt, a shell in a shell, and a server for files.
    let mut terminal = App::connect(&container).open_terminal("one");
    terminal.type_in("sh\necho $((1 + 1))up\n");
    terminal.await_output("2up\r\n");
    // Another that nobody looks at.
    drop(App::connect(&container).open_terminal("two"));
    let (code, took) = container.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_millis(500), "{took:?}");
    sleep.wait().unwrap();
    terminal.await_end();
}

#[test]
fn a_program_that_needs_time_to_end_gets_it() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "");
    let slow =
        "trap 'sleep 1; sleep 1; echo clean; exit' TERM; echo up; while :; do sleep 0.1; done";
    let mut slow = container.exec(&["setsid", "sh", "-c", slow]);
    await_line(&mut slow, "up");
    let (code, took) = container.stop();
    assert_eq!(code, Some(0));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let mut said = String::new();
    slow.stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "clean\n");
    slow.wait().unwrap();
}

#[test]
fn what_runs_in_a_terminal_has_its_time_to_end_too() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "node");
    let mut terminal = App::connect(&container).open_terminal("one");
    terminal.type_in("stty -echo; sh -c 'trap \"sleep 1; echo clean; exit\" TERM; echo up; while :; do sleep 0.1; done'; echo after\n");
    terminal.await_output("up\r\n");
    assert_eq!(container.stop().0, Some(0));
    terminal.await_end();
    let said = &terminal.shown;
    assert!(
        said.contains("clean\r\n") && said.contains("after\r\n"),
        "{said:?}"
    );
}

#[test]
fn a_terminal_is_a_tty_that_follows_the_size_and_tells_how_the_shell_ended() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let mut terminal = App::connect(&container).open_terminal("one");
    terminal.type_in("stty -echo; PS1=; echo [$0 $TERM $HOME $USER $SHELL]; stty size\n");
    terminal.await_output("[sh xterm-256color /home/node node /bin/sh]\r\n24 80\r\n");
    terminal.send(
        &Input::Resize {
            cols: 132,
            rows: 50,
        },
        &[],
    );
    terminal.type_in("stty size\n");
    terminal.await_output("50 132\r\n");
    terminal.type_in("sleep 1000\n");
    // Only then is it in the foreground, where Ctrl-C goes.
    await_process(&container, "(sleep)");
    terminal.type_in("\x03");
    terminal.type_in("echo interrupted; (sleep 60 &); exit 7\n");
    terminal.await_output("interrupted\r\n");
    let begin = Instant::now();
    let end = terminal.await_end();
    assert!(
        begin.elapsed() < PATIENCE,
        "what it left behind is not waited for"
    );
    assert_eq!(end.code, Some(7), "{end:?}");
}

#[test]
fn a_terminal_begins_where_it_is_asked_to_and_says_so_when_it_cannot() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let open = |id: &str, begins| {
        App::connect(&container).terminal(&Call::OpenTerminal {
            id: id.to_owned(),
            cols: 80,
            rows: 24,
            begins: Some(begins),
        })
    };
    let at = |path: &str| Begins::At { path: path.into() };
    let like = |id: &str| Begins::Like { id: id.into() };
    let where_it_is = |shell: &mut Shell, expected: &str| {
        shell.type_in("stty -echo; echo [$(pwd)]\n");
        shell.await_output(&format!("[{expected}]\r\n"));
    };
    let mut first = App::connect(&container).open_terminal("first");
    // Here the engine has said no folder.
    where_it_is(&mut first, "/");
    first.type_in("cd /workspace; mkdir -p 'a b/deep' later gone; cd 'a b'; echo $((1 + 1))made\n");
    first.await_output("2made\r\n");

    where_it_is(
        &mut open("at", at("/workspace/a b/deep")),
        "/workspace/a b/deep",
    );
    // Nobody has told it, so it is where the shell is.
    where_it_is(&mut open("like", like("first")), "/workspace/a b");
    // A program in front is somewhere else than its shell.
    first.type_in("(cd /workspace/later; echo $((1 + 1))there; sleep 1000)\n");
    first.await_output("2there\r\n");
    await_process(&container, "(sleep)");
    where_it_is(&mut open("in front", like("first")), "/workspace/later");
    first.type_in("\x03printf '\\033]7;file:///workspace/gone\\007'; echo $((1 + 1))told\n");
    first.await_output("2told\r\n");
    where_it_is(&mut open("told", like("first")), "/workspace/gone");

    first.type_in("rmdir /workspace/gone; echo $((1 + 1))gone\n");
    first.await_output("2gone\r\n");
    let mut elsewhere = open("elsewhere", like("first"));
    elsewhere.await_output(
        "The folder /workspace/gone is not there any more. The shell begins in /.\r\n",
    );
    where_it_is(&mut elsewhere, "/");
    where_it_is(&mut open("like nothing", like("nothing")), "/");
}

#[test]
fn how_terminals_are_shown_is_kept_for_the_next_window_within_bounds() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let tab = |name: &str, ids: &[&str]| Tab {
        name: name.to_owned(),
        stacked: true,
        panes: ids
            .iter()
            .map(|id| Pane {
                id: (*id).to_owned(),
                share: 50,
            })
            .collect(),
    };
    let tabs = vec![tab("build", &["one", "two"]), tab("", &["three"])];
    let arrange = |tabs: &[Tab]| {
        App::connect(&container).call(&Call::ArrangeTerminals {
            tabs: tabs.to_vec(),
        })
    };
    assert_eq!(arrange(&tabs), Ok(Reply::ArrangeTerminals));
    for too_much in [
        vec![tab(&"é".repeat(81), &["one"])],
        vec![tab("", &[])],
        vec![tab("", &["1", "2", "3", "4", "5"])],
        vec![tab("", &["one"]); 65],
        vec![tab("", &[&"x".repeat(101)])],
    ] {
        let refused = arrange(&too_much).unwrap_err();
        assert_eq!(refused.failure, Failure::Invalid);
    }
    let terminals = vec![];
    assert_eq!(
        App::connect(&container).call(&Call::Terminals),
        Ok(Reply::Terminals { terminals, tabs })
    );
}

#[test]
fn a_terminal_outlives_the_connection_and_is_as_it_was() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let mut terminal = App::connect(&container).open_terminal("one");
    terminal.type_in("stty -echo; PS1=; x=kept; echo $((1 + 1))up\n");
    terminal.await_output("2up\r\n");
    terminal.type_in("sleep 0.3; echo late; sleep 1000\n");
    drop(terminal);

    let mut app = App::connect(&container);
    let terminals = vec!["one".to_owned()];
    assert_eq!(
        app.call(&Call::Terminals),
        Ok(Reply::Terminals {
            terminals,
            tabs: vec![]
        })
    );
    let attach = |from| Call::AttachTerminal {
        id: "one".to_owned(),
        from,
    };
    // What it wrote while nobody looked comes, and what was before as well.
    let mut terminal = app.terminal(&attach(0));
    terminal.await_output("2up\r\n");
    terminal.await_output("late\r\n");
    await_process(&container, "(sleep)");
    terminal.type_in("\x03echo [$x]\n");
    terminal.await_output("[kept]\r\n");

    // Whoever looks next has it alone.
    let mut other = App::connect(&container).terminal(&attach(u64::MAX));
    while terminal.go_on() {}
    assert_eq!(terminal.end, None);
    other.type_in("echo again\n");
    other.await_output("again\r\n");
    assert!(!other.shown.contains("late"));

    drop(terminal);
    let close = Call::CloseTerminal {
        id: "one".to_owned(),
    };
    assert_eq!(container.call(&close), Ok(Reply::CloseTerminal));
    assert_eq!(container.call(&close), Ok(Reply::CloseTerminal));
    while other.go_on() {}
    drop(other);
    eventually("the end of all but process 1 and the daemon", || {
        (container.processes().len() == 2).then_some(())
    });
    let error = container.call(&attach(0)).unwrap_err();
    assert_eq!(error.failure, Failure::NotFound);
}

#[test]
fn a_terminal_that_nobody_looks_at_writes_on_and_one_that_nobody_reads_waits() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let mut terminal = App::connect(&container).open_terminal("one");
    // Nobody reads: the program waits.
    terminal.type_in("seq 2000000; echo the-end > /workspace/end\n");
    let mut app = App::connect(&container);
    let read = |app: &mut App| {
        let path = "/workspace/end".to_owned();
        app.call(&Call::Read {
            path,
            offset: 0,
            limit: 9,
        })
    };
    terminal.await_output("100\r\n");
    for _ in 0..20 {
        // Answered beside the flood.
        assert_eq!(read(&mut app).unwrap_err().failure, Failure::NotFound);
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nobody looks: it goes on, and the last of it is kept.
    drop(terminal);
    eventually("the end", || {
        App::connect(&container)
            .call(&Call::Read {
                path: "/workspace/end".to_owned(),
                offset: 0,
                limit: 9,
            })
            .ok()
    });
    let terminal = app.terminal(&Call::AttachTerminal {
        id: "one".to_owned(),
        from: 0,
    });
    assert!(terminal.shown.contains("1999999\r\n2000000\r\n"));
}

#[test]
fn whoever_ends_or_stops_the_daemon_is_made_up_for_and_only_root_speaks_to_it() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let daemon = || {
        let processes = container.processes();
        let mut daemon = processes.iter().filter_map(|stat| {
            let fields: Vec<&str> = stat.split(' ').collect();
            (fields[1] == "(agent)" && fields[3] == "1").then(|| fields[0].to_owned())
        });
        daemon.next()
    };
    assert!(container.call(&hello()).is_ok());
    let first = eventually("the daemon", daemon);
    let by_user = |command: &[&str]| container.exec(command).wait_with_output().unwrap();
    // Held up by a program of its user, it goes on when the app connects.
    assert!(
        by_user(&["sh", "-c", &format!("kill -STOP {first}")])
            .status
            .success()
    );
    assert!(container.call(&hello()).is_ok());
    assert_eq!(daemon(), Some(first.clone()));
    // Its user can end it, and nothing else.
    for file in ["fd/0", "mem", "environ"] {
        let path = format!("/proc/{first}/{file}");
        assert!(!by_user(&["head", "-c", "1", &path]).status.success());
    }
    let said = by_user(&["/.cove/agent", "connect"]);
    assert!(!said.status.success() && said.stdout.is_empty());
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("Permission denied"), "{said}");
    assert!(
        by_user(&["sh", "-c", &format!("kill -KILL {first}")])
            .status
            .success()
    );
    assert!(container.call(&hello()).is_ok());
    assert_ne!(daemon(), Some(first));
}

fn await_process(container: &Container, name: &str) {
    eventually(name, || {
        let processes = container.processes();
        processes
            .iter()
            .any(|stat| stat.contains(name))
            .then_some(())
    });
}

fn await_line(child: &mut Child, expected: &str) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim_end(), expected);
}
