//! A terminal: a shell on a TTY of its own, and what it wrote of late. It goes on whether or not anybody looks.
//!
//! While it is shown somewhere, no more is read of the TTY than can be sent, so that a program that writes without end
//! waits for whoever looks; while it is shown nowhere, it writes on, and the oldest is forgotten.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::terminal::End;

/// Bytes of output that are kept for whoever looks again.
const KEPT: usize = 512 << 10;
/// Output that whoever looks has not been sent; beyond, the TTY is not read.
const AHEAD: u64 = 64 << 10;
/// Typed bytes that may wait for the program to read them; beyond, no more are taken from the app.
const WAITING: usize = 64 << 10;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A terminal and its shell. Dropping it hangs up.
#[derive(Debug)]
pub(super) struct Terminal {
    /// `None` when nothing comes of it any more.
    tty: Option<File>,
    shell: Child,
    status: Option<ExitStatus>,
    typed: VecDeque<u8>,
    /// How many bytes have been typed since it began.
    typed_in_all: u64,
    recent: VecDeque<u8>,
    /// How many bytes have been written since it began.
    written: u64,
}

impl Terminal {
    /// Begins a terminal.
    ///
    /// # Errors
    /// Says how that failed, for people.
    pub(super) fn open(cols: u16, rows: u16) -> Result<Self, String> {
        Self::begin(cols, rows).map_err(|error| {
            if error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error()) {
                "The session's process limit is used up, so that no shell can be started."
                    .to_owned()
            } else {
                format!("The terminal failed: {error}.")
            }
        })
    }

    fn begin(cols: u16, rows: u16) -> io::Result<Self> {
        let (tty, slave) = open_tty()?;
        resize(&tty, cols, rows)?;
        let shell = Command::new(env::current_exe()?)
            .arg("shell")
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave))
            .spawn()?;
        let flags = fcntl_getfl(&tty)?;
        fcntl_setfl(&tty, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            tty: Some(tty),
            shell,
            status: None,
            typed: VecDeque::new(),
            typed_in_all: 0,
            recent: VecDeque::new(),
            written: 0,
        })
    }

    /// Returns what is waited for, if anything: `sent` is how much of the output whoever looks has been sent.
    pub(super) fn awaits(&self, sent: Option<u64>) -> Option<(&File, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.reads(sent) {
            flags |= PollFlags::IN;
        }
        if !self.typed.is_empty() {
            flags |= PollFlags::OUT;
        }
        let tty = self.tty.as_ref()?;
        // What cannot be used now is not waited for: an end of it would wake the daemon for nothing.
        (!flags.is_empty()).then_some((tty, flags))
    }

    fn reads(&self, sent: Option<u64>) -> bool {
        sent.is_none_or(|sent| self.written.saturating_sub(sent) < AHEAD)
    }

    /// Returns whether the shell has ended and was told of at the last [`Self::go_on`], with output that may be left.
    pub(super) fn hurries(&self, sent: Option<u64>) -> bool {
        self.status.is_some() && self.tty.is_some() && self.reads(sent)
    }

    /// Reads and writes what can be without waiting.
    pub(super) fn go_on(&mut self, sent: Option<u64>) {
        let Some(mut tty) = self.tty.take() else {
            return;
        };
        while !self.typed.is_empty() {
            let (front, _) = self.typed.as_slices();
            match tty.write(front) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(error) if is_for_later(&error) => break,
                // A TTY that nobody has open takes no input.
                Err(_) => self.typed.clear(),
            }
        }
        // Asked before the TTY is read, so that all that the shell wrote is kept. Programs that it left in the background
        // may hold the TTY; they are not waited for.
        self.look_at_shell();
        let mut piece = vec![0; PIECE];
        if !self.reads(sent) {
            self.tty = Some(tty);
            return;
        }
        match tty.read(&mut piece) {
            Ok(count @ 1..) => {
                self.keep(piece.get(..count).unwrap_or_default());
                self.tty = Some(tty);
            }
            Err(error) if is_for_later(&error) && self.status.is_none() => self.tty = Some(tty),
            // `EIO` says that nobody has the other side open any more. A shell that goes on without a terminal is waited for.
            Ok(_) | Err(_) => self.typed.clear(),
        }
    }

    /// Takes note of the end of the shell, if it has ended.
    pub(super) fn look_at_shell(&mut self) {
        if self.status.is_none()
            && let Ok(status) = self.shell.try_wait()
        {
            self.status = status;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        self.recent.extend(bytes);
        let excess = self.recent.len().saturating_sub(KEPT);
        self.recent.drain(..excess);
    }

    /// Takes in what was typed; see [`Self::takes_input`].
    pub(super) fn type_in(&mut self, bytes: &[u8]) {
        self.typed_in_all += bytes.len() as u64;
        if self.tty.is_some() {
            self.typed.extend(bytes);
        }
    }

    /// Returns whether more may be typed before what was has been read.
    pub(super) fn takes_input(&self) -> bool {
        self.typed.len() < WAITING
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) const fn typed_in_all(&self) -> u64 {
        self.typed_in_all
    }

    pub(super) fn resize(&self, cols: u16, rows: u16) {
        if let Some(tty) = &self.tty {
            // One that nobody has open needs no size.
            let _ = resize(tty, cols, rows);
        }
    }

    /// Returns from where on output is kept, if it is wanted from there.
    pub(super) fn kept_from(&self, wanted: u64) -> u64 {
        let first = self.written - self.recent.len() as u64;
        wanted.clamp(first, self.written)
    }

    /// Returns at most so many bytes of output, as much as is kept in one piece.
    pub(super) fn output(&self, from: u64, most: usize) -> Vec<u8> {
        let first = self.written - self.recent.len() as u64;
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.recent.len());
        let count = most.min(self.recent.len() - skipped);
        self.recent
            .range(skipped..skipped + count)
            .copied()
            .collect()
    }

    /// Returns how the shell ended, when all of its output before `sent` is all there is.
    pub(super) fn end(&self, sent: u64) -> Option<End> {
        let status = self.status.filter(|_| self.tty.is_none())?;
        (sent == self.written).then(|| end_of(status))
    }

    /// Hangs up, and returns the shell, which ends when it likes.
    pub(super) fn hang_up(self) -> Child {
        self.shell
    }

    /// Returns whether its shell has ended.
    pub(super) const fn has_ended(&self) -> bool {
        self.status.is_some()
    }
}

fn end_of(status: ExitStatus) -> End {
    let message = match (status.code(), status.signal()) {
        (Some(code), _) if code != 0 => format!("The shell ended with code {code}."),
        (None, Some(signal)) => format!("The shell was ended by signal {signal}."),
        (Some(_), _) | (None, None) => "The shell ended.".to_owned(),
    };
    End {
        code: status.code(),
        message,
    }
}

/// Returns both sides of a new TTY.
fn open_tty() -> io::Result<(File, OwnedFd)> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = open(name.as_c_str(), flags, Mode::empty())?;
    Ok((File::from(controller), slave))
}

fn resize(tty: &File, cols: u16, rows: u16) -> io::Result<()> {
    let size = Winsize {
        ws_col: cols,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(tty, size).map_err(io::Error::from)
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
