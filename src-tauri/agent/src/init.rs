//! `agent init`: process 1 of a session's container.
//!
//! It gives the workspace to the session's user, says how far it is with that, and then does what process 1
//! must: it takes in orphans, keeps the session's daemon running, and ends everything when the container is stopped. It
//! stays root, so it listens to nobody but the kernel: no sockets, no files that a session's user can write.

use std::collections::BTreeSet;
use std::env;
use std::ffi::c_int;
use std::io::{self, PipeWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, test_kill_process_group,
    wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::accounts::Owner;
use crate::hand_over::{self, Give, HandOver};
use crate::processes::Role;
use crate::protocol::CallError;
use crate::readiness::Setup;
use crate::{accounts, processes, readiness};

/// How long programs have to end by themselves. The engine waits as long as the user has set, and then
/// kills; this is for a signal that no engine has sent, and longer than any setting.
const LAST: Duration = Duration::from_secs(900);

/// How long the agent's own terminals have to pass on the end of their shells.
const FAREWELL: Duration = Duration::from_millis(200);

/// How often it is looked who is left, at first and after a second.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// How often a hand-over says how far it is.
const TELL_AGAIN: Duration = Duration::from_millis(100);

/// How long a daemon must have lived for another to take its place at once.
const AGAIN: Duration = Duration::from_millis(200);

const SIGPWR: c_int = 30;

/// `SIGRTMIN+3`, with which images of systemd ask to be stopped.
const SIGRTMIN_3: c_int = 37;

/// Everything that images name as their stop signal. Only root in the container and the engine can send it.
const STOP: [c_int; 9] = [
    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPWR, SIGUSR1, SIGUSR2, SIGWINCH, SIGRTMIN_3,
];

/// As whom programs run.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// The image's user as the engine writes it.
    pub name: &'a str,
    /// Whether `HOME` is what the image has set, and not what the engine has, for root.
    pub keeps_home: bool,
}

/// Is process 1 until the container is stopped.
///
/// The files are given to the user once for each token. A setup that
/// fails is announced like one that succeeds: only the daemon can tell the app.
#[must_use]
pub fn run(user: User<'_>, give: (Give, &str), directory: &Path, workspace: &Path) -> ExitCode {
    if getpid() != Pid::INIT {
        complain("`agent init` must be process 1 of a container");
        return ExitCode::FAILURE;
    }
    // Before anything else: process 1 gets only the signals that it has asked for.
    let mut signals = match Signals::new(STOP.iter().chain(&[SIGCHLD])) {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("failed to ask for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut children = Children {
        owner: user.name.to_owned(),
        keeps_home: user.keeps_home,
        daemon: None,
    };
    match set_up(
        user.name,
        give,
        (directory, workspace),
        &mut signals,
        &mut children,
    ) {
        Ok(HandOver::Finished) => {}
        Ok(HandOver::Stopped) => {
            children.end_all();
            return ExitCode::SUCCESS;
        }
        Err(error) => complain(&error.message),
    }
    for signal in signals.forever() {
        if signal == SIGCHLD {
            children.reap();
        } else {
            children.end_all();
            break;
        }
    }
    ExitCode::SUCCESS
}

/// The processes below process 1.
struct Children {
    /// The image's user as the engine writes it.
    owner: String,
    keeps_home: bool,
    daemon: Option<Daemon>,
}

/// The session's daemon.
struct Daemon {
    pid: Pid,
    began: Instant,
    /// Its stdin: that it ends says that the container is being stopped.
    _until_stopped: PipeWriter,
}

impl Children {
    /// Starts a daemon, if none runs.
    fn ensure_daemon(&mut self) {
        if self.daemon.is_none() {
            match Daemon::start(&self.owner, self.keeps_home) {
                Ok(daemon) => self.daemon = Some(daemon),
                Err(error) => complain(&format!("failed to start the session's daemon: {error}")),
            }
        }
    }

    /// Takes in every process that has ended, ours or an orphan, and puts another daemon in the place of one.
    fn reap(&mut self) {
        if self.take_in() {
            if let Some(daemon) = self.daemon.take() {
                // One that cannot live is not tried without end at once.
                thread::sleep(AGAIN.saturating_sub(daemon.began.elapsed()));
            }
            self.ensure_daemon();
        }
    }

    /// Takes in every process that has ended; returns whether the daemon was among them.
    fn take_in(&self) -> bool {
        let daemon = self.daemon.as_ref().map(|daemon| daemon.pid);
        let mut is_daemon = false;
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            is_daemon |= Some(pid) == daemon;
        }
        is_daemon
    }

    /// Asks all others to end and waits for them. Who is left when process 1 exits is killed by the kernel.
    ///
    /// Everybody gets SIGTERM at once. Interactive shells ignore it, so once nothing else is left their terminals
    /// hang up: they save their history and end. Not before, for a shell passes the hang-up on to what runs in it,
    /// which may just be writing its last; and only when two looks have found them waiting, for processes come and go
    /// during one.
    fn end_all(mut self) {
        // With the end of its stdin it hears why, before the signal comes.
        let daemon = self.daemon.take().map(|daemon| daemon.pid);
        let begin = Instant::now();
        // `kill(-1)`: everything in the container except ourselves. None left is no failure.
        let _ = kill_process_group(Pid::INIT, Signal::TERM);
        // What is stopped would not see the signal.
        let _ = kill_process_group(Pid::INIT, Signal::CONT);
        let (mut hung_up, mut alone_since) = (BTreeSet::new(), None);
        let mut were_waiting = false;
        while begin.elapsed() < LAST {
            let look = Instant::now();
            self.take_in();
            if test_kill_process_group(Pid::INIT).is_err() {
                return;
            }
            let others = processes::others(daemon);
            let is_left = |role| others.iter().any(|(_, other)| *other == role);
            let are_waiting = !is_left(Role::Program);
            if are_waiting && were_waiting {
                if is_left(Role::Shell) {
                    let shells = others.iter().filter(|(_, role)| *role == Role::Shell);
                    for (shell, _) in shells {
                        if hung_up.insert(shell.as_raw_nonzero()) {
                            // Gone meanwhile is no failure.
                            let _ = kill_process(*shell, Signal::HUP);
                        }
                    }
                } else if alone_since.get_or_insert(look).elapsed() >= FAREWELL {
                    return;
                }
            }
            were_waiting = are_waiting;
            // Processes that the engine has started are not our children: nothing tells when they end.
            let pause = if begin.elapsed() < Duration::from_secs(1) {
                LOOK_AGAIN.0
            } else {
                LOOK_AGAIN.1
            };
            // With thousands of processes a look takes long itself.
            thread::sleep(pause.max(look.elapsed()));
        }
    }
}

impl Daemon {
    fn start(owner: &str, keeps_home: bool) -> io::Result<Self> {
        let (stdin, until_stopped) = io::pipe()?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["daemon", "--owner", owner]).stdin(stdin);
        // The engine has set the home of root, which this process is.
        let owner = Owner::of(owner);
        if owner.uid != 0 && !keeps_home {
            command.env("HOME", owner.home());
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or(io::ErrorKind::InvalidData)?,
            began: Instant::now(),
            _until_stopped: until_stopped,
        })
    }
}

fn set_up(
    owner: &str,
    (give, token): (Give, &str),
    (directory, workspace): (&Path, &Path),
    signals: &mut Signals,
    children: &mut Children,
) -> Result<HandOver, CallError> {
    let own = |error| {
        readiness::not_ready(format!(
            "failed to prepare `{}`: {error}",
            directory.display()
        ))
    };
    let start_time = processes::stat_of(Pid::INIT)
        .ok_or_else(|| readiness::not_ready("/proc is not mounted in this container".to_owned()))?
        .start_time;
    readiness::prepare(directory).map_err(own)?;
    // It says how far the setup is.
    children.ensure_daemon();
    let mut told = Instant::now();
    let tell = |seen| {
        for signal in signals.pending() {
            if signal == SIGCHLD {
                children.reap();
            } else {
                return ControlFlow::Break(());
            }
        }
        if told.elapsed() >= TELL_AGAIN {
            told = Instant::now();
            // Whoever waits for it waits a little longer.
            let _ = readiness::announce(directory, start_time, &Setup::At(seen));
        }
        ControlFlow::Continue(())
    };
    let outcome = hand_over::is_apart(directory, workspace)
        .and_then(|()| accounts::resolve_owner(owner, &accounts::passwd(), &accounts::group()))
        .and_then(|owner| {
            hand_over::once((directory, token), workspace, owner, give, tell)
                .map_err(readiness::not_ready)
        });
    let setup = match &outcome {
        Ok(HandOver::Finished) => Setup::Finished,
        // Nobody is to hear of it: it goes on at the next start.
        Ok(HandOver::Stopped) => return Ok(HandOver::Stopped),
        Err(reason) => Setup::Failed(reason.clone()),
    };
    readiness::announce(directory, start_time, &setup).map_err(own)?;
    outcome
}

fn complain(message: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "cove-agent: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_refuses_to_be_any_other_process() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(
            run(
                User {
                    name: "",
                    keeps_home: false
                },
                (Give::All, ""),
                nowhere,
                nowhere
            ),
            ExitCode::FAILURE
        );
    }
}
