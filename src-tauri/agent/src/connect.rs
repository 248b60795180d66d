//! `agent connect`: a dumb pipe between the app, which has the engine start it as root, and the session's daemon.
//!
//! The daemon's socket is in a folder that only root enters, so that no program of the session's user gets to it; a
//! program that is root in the container has it in its hands anyway.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::socket_peercred;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Signal, kill_process};
use signal_hook::consts::SIGTERM;

use crate::daemon::{self, is_for_later};

/// How long the daemon may take until it listens: process 1 may just be starting it.
const LIMIT: Duration = Duration::from_secs(10);

/// How long until it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bytes that are read at once, and that a pipe to the engine is asked to hold: more of them at a time are fewer changes
/// between all the programs on the way.
const PIECE: usize = 256 << 10;

/// Passes bytes on in both directions until both have ended.
#[must_use]
pub fn run(directory: &Path) -> ExitCode {
    match serve(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The app reads it from the exec's stderr; without one there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "cove-agent: no way to the session's daemon: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

fn serve(directory: &Path) -> io::Result<()> {
    // When the container is stopped, the daemon says when all is over: programs may have something left to write.
    signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false)))?;
    let begin = Instant::now();
    let socket = loop {
        match UnixStream::connect(daemon::socket_in(directory)) {
            Ok(socket) => break socket,
            Err(error)
                if begin.elapsed() >= LIMIT || error.kind() == ErrorKind::PermissionDenied =>
            {
                return Err(error);
            }
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
    };
    // A program of the same user may have stopped the daemon, which can only go on if somebody tells it to.
    if let Ok(daemon) = socket_peercred(&socket) {
        // Whether it ended meanwhile is heard from the socket.
        let _ = kill_process(daemon.pid, Signal::CONT);
    }
    for end in [io::stdin().as_fd(), io::stdout().as_fd()] {
        // What is no pipe, or is not to be changed, is as good.
        let _ = fcntl_setpipe_size(end, PIECE);
    }
    let mut to_daemon = Flow::new(io::stdin().as_fd(), socket.as_fd())?;
    let mut to_app = Flow::new(socket.as_fd(), io::stdout().as_fd())?;
    while to_app.is_open {
        let mut awaited = Vec::new();
        awaited.extend(to_daemon.awaited());
        awaited.extend(to_app.awaited());
        match poll(&mut awaited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if to_daemon.is_open && !to_daemon.go_on()? {
            // The daemon hears the end, and ends its own side.
            let _ = socket.shutdown(Shutdown::Write);
        }
        to_app.go_on()?;
    }
    Ok(())
}

/// One direction.
struct Flow {
    from: File,
    to: File,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not been passed on.
    waiting: Range<usize>,
    is_open: bool,
}

impl Flow {
    fn new(from: impl AsFd, to: impl AsFd) -> io::Result<Self> {
        let unblocked = |descriptor: OwnedFd| -> io::Result<File> {
            let flags = fcntl_getfl(&descriptor)?;
            fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
            Ok(descriptor.into())
        };
        Ok(Self {
            from: unblocked(from.as_fd().try_clone_to_owned()?)?,
            to: unblocked(to.as_fd().try_clone_to_owned()?)?,
            buffer: vec![0; PIECE],
            waiting: 0..0,
            is_open: true,
        })
    }

    fn awaited(&self) -> Option<PollFd<'_>> {
        let next = if self.waiting.is_empty() {
            PollFd::new(&self.from, PollFlags::IN)
        } else {
            PollFd::new(&self.to, PollFlags::OUT)
        };
        self.is_open.then_some(next)
    }

    /// Passes on what can be without waiting; `false` when it has ended.
    fn go_on(&mut self) -> io::Result<bool> {
        if self.waiting.is_empty() {
            match self.from.read(&mut self.buffer) {
                Ok(count @ 1..) => self.waiting = 0..count,
                Err(error) if is_for_later(&error) => {}
                // One that cannot be read has ended.
                Ok(0) | Err(_) => self.is_open = false,
            }
        }
        if !self.waiting.is_empty() {
            let waiting = self.buffer.get(self.waiting.clone()).unwrap_or_default();
            match self.to.write(waiting) {
                Ok(count) => self.waiting.start += count,
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.is_open)
    }
}
