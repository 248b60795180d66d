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

use cove_agent::protocol::{
    self, Call, CallError, Decoder, Failure, Frame, Reply, Request, Response,
};
use cove_agent::terminal::{End, Input};

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

    /// Runs a command as an engine's exec does: its parent is outside of the container.
    fn exec(&self, command: &[&str]) -> Child {
        Command::new("nsenter")
            .args([
                "--mount", "--pid", "--root", "--wd", "--setuid", "1000", "--setgid", "1001",
                "--target",
            ])
            .arg(self.init.to_string())
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

    fn call(&self, call: Call) -> Result<Reply, CallError> {
        let mut serve = self.exec(&["/.cove/agent", "serve"]);
        let request = protocol::encode(&Request { id: 7, call }, &[]).unwrap();
        serve.stdin.take().unwrap().write_all(&request).unwrap();
        let mut answer = Vec::new();
        serve
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut answer)
            .unwrap();
        assert_eq!(serve.wait().unwrap().code(), Some(0));
        let mut decoder = Decoder::<Response>::new();
        decoder.push(&answer);
        let Frame { header, .. } = decoder.next_frame().unwrap().unwrap();
        assert!(decoder.is_between_frames());
        assert_eq!(header.id, 7);
        header.result
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
    let Ok(Reply::Hello(hello)) = container.call(hello()) else {
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
    let Ok(Reply::Hello(hello)) = container.call(hello()) else {
        panic!("no hello")
    };
    assert!(hello.workspace_writable);
    assert_eq!(owner(), 1000);
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    container.stop();
    let container = Container::start(root.path(), "1000:1000");
    assert!(container.call(crate::hello()).is_ok());
    assert_eq!(owner(), 0, "what happened later stays");
}

#[test]
fn a_workspace_behind_a_link_is_given_as_any() {
    let Some(root) = root() else { return };
    fs::remove_dir(root.path().join("workspace")).unwrap();
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    symlink("elsewhere", root.path().join("workspace")).unwrap();
    let container = Container::start(root.path(), "node");
    let Ok(Reply::Hello(hello)) = container.call(hello()) else {
        panic!("no hello")
    };
    assert!(hello.workspace_writable);
}

#[test]
fn a_failed_setup_is_told_and_the_next_start_is_judged_by_itself() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "ghost");
    let error = container.call(hello()).unwrap_err();
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
    assert!(container.call(hello()).is_ok());
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
    assert!(container.processes().len() > 1, "the orphans run on");
    eventually("the end of all orphans", || {
        (container.processes().len() == 1).then_some(())
    });
}

#[test]
fn a_stop_is_quick_when_everything_goes() {
    let Some(root) = root() else { return };
    let mut container = Container::start(root.path(), "");
    let mut sleep = container.exec(&["sh", "-c", "echo up; exec sleep 60"]);
    await_line(&mut sleep, "up");
    // A prompt, a shell in a shell, and a server for files.
    let mut terminal =
        container.exec(&["/.cove/agent", "terminal", "--cols", "80", "--rows", "24"]);
    let mut input = terminal.stdin.take().unwrap();
    let nested = protocol::encode(&Input::Bytes, b"sh\necho $((1 + 1))up\n").unwrap();
    input.write_all(&nested).unwrap();
    await_output(&mut terminal, "2up\r\n");
    let serve = container.exec(&["/.cove/agent", "serve"]);
    let (code, took) = container.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_millis(500), "{took:?}");
    for mut child in [sleep, terminal, serve] {
        child.wait().unwrap();
    }
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
    let mut terminal =
        container.exec(&["/.cove/agent", "terminal", "--cols", "80", "--rows", "24"]);
    let slow = b"stty -echo; sh -c 'trap \"sleep 1; echo clean; exit\" TERM; echo up; while :; do sleep 0.1; done'; echo after\n";
    let mut input = terminal.stdin.take().unwrap();
    input
        .write_all(&protocol::encode(&Input::Bytes, slow).unwrap())
        .unwrap();
    await_output(&mut terminal, " up\r\n");
    assert_eq!(container.stop().0, Some(0));
    let mut said = String::new();
    let stdout = terminal.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("clean\r\n") && said.contains("after\r\n"),
        "{said:?}"
    );
    terminal.wait().unwrap();
}

#[test]
fn a_terminal_is_a_tty_that_follows_the_size_and_tells_how_the_shell_ended() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let mut terminal =
        container.exec(&["/.cove/agent", "terminal", "--cols", "80", "--rows", "24"]);
    let mut input = terminal.stdin.take().unwrap();
    let mut send = |header: &Input, body: &[u8]| {
        input
            .write_all(&protocol::encode(header, body).unwrap())
            .unwrap();
    };
    send(
        &Input::Bytes,
        b"stty -echo; PS1=; echo [$0 $TERM $HOME $USER $SHELL]; stty size\n",
    );
    await_output(
        &mut terminal,
        "[sh xterm-256color /home/node node /bin/sh]\r\n24 80\r\n",
    );
    send(
        &Input::Resize {
            cols: 132,
            rows: 50,
        },
        &[],
    );
    send(&Input::Bytes, b"stty size\n");
    await_output(&mut terminal, "50 132\r\n");
    send(&Input::Bytes, b"sleep 1000\n");
    // Only then is it in the foreground, where Ctrl-C goes.
    eventually("the sleep", || {
        let processes = container.processes();
        processes
            .iter()
            .any(|stat| stat.contains("(sleep)"))
            .then_some(())
    });
    send(&Input::Bytes, b"\x03");
    send(&Input::Bytes, b"echo interrupted; (sleep 60 &); exit 7\n");
    await_output(&mut terminal, "interrupted\r\n");
    let begin = Instant::now();
    let ended = terminal.wait_with_output().unwrap();
    assert!(
        begin.elapsed() < PATIENCE,
        "what it left behind is not waited for"
    );
    let end: End = serde_json::from_slice(&ended.stderr).unwrap();
    assert_eq!(end.code, Some(7), "{end:?}");
}

#[test]
fn a_terminal_whose_app_is_gone_hangs_up_its_shell() {
    let Some(root) = root() else { return };
    let container = Container::start(root.path(), "node");
    let mut terminal =
        container.exec(&["/.cove/agent", "terminal", "--cols", "80", "--rows", "24"]);
    let mut input = terminal.stdin.take().unwrap();
    input
        .write_all(&protocol::encode(&Input::Bytes, b"echo up; sleep 60\n").unwrap())
        .unwrap();
    await_output(&mut terminal, "up\r\n");
    eventually("the sleep", || {
        (container.processes().len() == 4).then_some(())
    });
    drop(input);
    assert!(terminal.wait().unwrap().success());
    eventually("the end of all of them", || {
        (container.processes().len() == 1).then_some(())
    });
}

/// Reads until the output ends so; the stream goes on.
fn await_output(child: &mut Child, expected: &str) {
    let stdout = child.stdout.as_mut().unwrap();
    let (mut output, mut byte) = (Vec::new(), [0]);
    while !output.ends_with(expected.as_bytes()) {
        let count = stdout.read(&mut byte).unwrap();
        assert_eq!(
            count,
            1,
            "{} instead of {expected}",
            String::from_utf8_lossy(&output)
        );
        output.extend_from_slice(&byte);
    }
}

fn await_line(child: &mut Child, expected: &str) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim_end(), expected);
}
