//! Child processes that end with their guard, and with this process even when it is killed.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

/// A running child process; dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    name: String,
    /// Whether the process started is a wrapper around a process namespace.
    is_wrapper: bool,
}

/// Returns a command that starts `program` so that the kernel kills it when this process ends.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    if cfg!(target_os = "linux") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Returns a command like [`command`] whose whole family of processes ends with it, mounts and all.
///
/// That takes a process namespace, so without root on Linux only `program` itself is sure to end.
pub(crate) fn command_with_family(program: impl AsRef<OsStr>) -> Command {
    if !can_contain() {
        return command(program);
    }
    let mut command = command("unshare");
    command.args([
        "--mount",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child=KILL",
        "--",
    ]);
    if let Some(init) = ["docker-init", "tini"]
        .into_iter()
        .find(|name| on_path(name))
    {
        command.args([init, "-s", "--"]);
    }
    command.arg(program);
    command
}

/// Returns whether [`command_with_family`] can keep its word.
pub(crate) fn can_contain() -> bool {
    is_root() && on_path("unshare")
}

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> bool {
    #[cfg(unix)]
    {
        rustix::process::geteuid().is_root()
    }
    #[cfg(not(unix))]
    {
        false
    }
}

/// Returns whether a program of this name is on the `PATH`.
pub(crate) fn on_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

pub(crate) fn is_alive(pid: u32) -> bool {
    #[cfg(unix)]
    {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| {
            !matches!(
                rustix::process::test_kill_process(pid),
                Err(rustix::io::Errno::SRCH)
            )
        })
    }
    #[cfg(not(unix))]
    {
        let _ = pid;
        true
    }
}

/// What a process is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// To end in its own way.
    Terminate,
    /// To end now.
    Kill,
}

/// Sends a signal to a process of ours; one that is gone is no failure.
pub(crate) fn signal(pid: u32, signal: Signal) {
    #[cfg(unix)]
    {
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        if let Some(pid) = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // The process may have ended by itself in the meantime.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (pid, signal);
    }
}

/// Returns the children of a process, as `/proc` tells.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| parent(*child) == Some(pid))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; state and parent follow the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

impl Guarded {
    /// Starts a command; `name` is for messages.
    ///
    /// # Errors
    /// When the program is missing or cannot start.
    pub fn spawn(name: &str, command: Command) -> Result<Self> {
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("failed to start `{name}`"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            is_wrapper: false,
        })
    }

    /// Starts a command made by [`command_with_family`].
    pub(crate) fn spawn_family(name: &str, command: Command) -> Result<Self> {
        let mut guarded = Self::spawn(name, command)?;
        guarded.is_wrapper = can_contain();
        Ok(guarded)
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the process to signal: the first of its namespace, or the process itself.
    fn innermost(&self) -> u32 {
        let first = if self.is_wrapper {
            children(self.id()).first().copied()
        } else {
            None
        };
        first.unwrap_or_else(|| self.id())
    }

    /// Returns the program itself, below what keeps its family together.
    pub(crate) fn in_family(&self) -> u32 {
        let first = self.innermost();
        children(first).first().copied().unwrap_or(first)
    }

    /// Returns the child's piped handles to take.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns how the process ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("failed to wait for `{}`", self.name))
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When the process ends before, or the time is over.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                bail!("`{}` ended before it was ready: {status}", self.name);
            }
            if start.elapsed() > limit {
                bail!("`{}` was not ready after {} s", self.name, limit.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Asks the process to end, and kills it when it has not after `limit`.
    pub(crate) fn terminate(&mut self, limit: Duration) {
        signal(self.innermost(), Signal::Terminate);
        let start = Instant::now();
        while start.elapsed() < limit {
            match self.ended() {
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        self.kill();
    }

    /// Kills the process, and the family of one started by [`command_with_family`].
    pub(crate) fn kill(&mut self) {
        if matches!(self.ended(), Ok(Some(_))) {
            return;
        }
        let innermost = self.innermost();
        if innermost != self.id() {
            // The wrapper ends by itself once the last process of the namespace is gone, mounts included.
            signal(innermost, Signal::Kill);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(5) {
                if !matches!(self.ended(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

type Spawn = (Command, Sender<io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process.
///
/// The kernel's death signal follows the *thread* that started the child, and a test's thread ends early.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Spawn>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Spawn>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                // The asker waits below; it cannot be gone.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    spawner
        .lock()
        .map_err(|_| anyhow!("the spawning thread is gone"))?
        .send((command, answer))
        .map_err(|_| anyhow!("the spawning thread is gone"))?;
    Ok(child.recv().context("the spawning thread is gone")??)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_guard_ends_its_process_and_the_family() {
        if !can_contain() {
            crate::skip("needs root for a process namespace");
            return;
        }
        let mut command = command_with_family("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        let mut guard = Guarded::spawn_family("sh", command).unwrap();
        let init = {
            let mut init = guard.id();
            guard
                .wait_until(Duration::from_secs(5), || {
                    init = children(init).first().copied().unwrap_or(init);
                    children(init).len() == 2
                })
                .unwrap();
            init
        };
        let sleepers = children(init);
        drop(guard);
        assert!(sleepers.iter().all(|pid| !is_alive(*pid)), "{sleepers:?}");
    }
}
