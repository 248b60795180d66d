//! The TTY and the loop that serves it. Everything is non-blocking and in one thread: a window that
//! does not read must not keep Ctrl-C from reaching the program that floods it.

use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use signal_hook::consts::{SIGCHLD, SIGTERM};

use super::{End, Input};
use crate::protocol::Decoder;

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// Typed bytes that may wait for the program to read them; beyond, the app is not read from.
const WAITING: usize = 1024 * 1024;

/// Runs a shell on a new TTY until it ends or stdin does.
#[must_use]
pub fn run(cols: u16, rows: u16) -> ExitCode {
    let end = match serve(cols, rows) {
        // The app is gone: with the TTY's last descriptor the kernel hangs up the shell.
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(status)) => end_of(status),
        Err(error) => End {
            code: None,
            message: failure(&error),
        },
    };
    let text = serde_json::to_vec(&end).unwrap_or_default();
    // Whoever would read it may be gone.
    let _ = io::stderr().write_all(&text);
    ExitCode::SUCCESS
}

fn failure(error: &io::Error) -> String {
    if error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error()) {
        "The session's process limit is used up, so that no shell can be started.".to_owned()
    } else {
        format!("The terminal failed: {error}.")
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

/// Returns how the shell ended, or `None` when the app went away first.
fn serve(cols: u16, rows: u16) -> io::Result<Option<ExitStatus>> {
    // When the container is stopped, programs on the TTY may have something left to write: the terminal
    // stays for as long as its shell does.
    let stopping = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stopping))?;
    // The other end is written to when a child has ended. Neither a thread nor a process is needed for that:
    // a session's own may have used up its process limit.
    let (ended, mark) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGCHLD, mark)?;
    let mut ended = File::from(OwnedFd::from(ended));

    let (mut tty, slave) = open_tty()?;
    resize(&tty, cols, rows)?;
    let mut shell = Command::new(env::current_exe()?)
        .arg("shell")
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave))
        .spawn()?;

    let (mut stdin, mut stdout) = (unbuffered(io::stdin())?, unbuffered(io::stdout())?);
    for descriptor in [&stdin, &stdout, &tty, &ended] {
        let flags = fcntl_getfl(descriptor)?;
        fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
    }

    let mut decoder = Decoder::<Input>::new();
    let (mut typed, mut shown) = (Vec::new(), Vec::new());
    let mut piece = vec![0; PIECE];
    let mut status = None;
    loop {
        // What cannot be used now is not waited for: an end of it would wake the loop for nothing.
        let mut awaited = Vec::new();
        let takes_input = typed.len() < WAITING;
        if takes_input {
            awaited.push(PollFd::new(&stdin, PollFlags::IN));
        }
        awaited.push(PollFd::new(&ended, PollFlags::IN));
        if shown.is_empty() {
            awaited.push(PollFd::new(&tty, PollFlags::IN));
        } else {
            awaited.push(PollFd::new(&stdout, PollFlags::OUT));
        }
        if !typed.is_empty() {
            awaited.push(PollFd::new(&tty, PollFlags::OUT));
        }
        // The end of the shell is heard once. After it there may be output to show, and nothing else to wait for.
        let at_once = Timespec::default();
        let limit = (status.is_some() && shown.is_empty()).then_some(&at_once);
        match poll(&mut awaited, limit) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }

        if takes_input {
            match read(&mut stdin, &mut piece)? {
                Some(0) => return Ok(None),
                Some(count) => {
                    decoder.push(piece.get(..count).unwrap_or_default());
                    while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
                        match frame.header {
                            Input::Bytes => typed.extend_from_slice(&frame.body),
                            Input::Resize { cols, rows } => resize(&tty, cols, rows)?,
                        }
                    }
                }
                None => {}
            }
        }
        // A TTY that nobody has open takes no input.
        if !typed.is_empty() && write(&mut tty, &mut typed).is_err() {
            typed.clear();
        }

        // Asked before the TTY is read, so that all that the shell wrote is shown. Programs that it
        // left in the background may hold the TTY; they are not waited for.
        while read(&mut ended, &mut piece)?.is_some_and(|count| count > 0) {}
        status = shell.try_wait()?;
        if status.is_some() && stopping.load(Ordering::SeqCst) {
            return Ok(status);
        }
        let mut is_over = false;
        if shown.is_empty() {
            match read(&mut tty, &mut piece) {
                Ok(Some(count)) => shown.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Ok(None) => is_over = status.is_some(),
                // `EIO` says that nobody has the other side open any more.
                Err(_) => is_over = true,
            }
        }
        if !shown.is_empty() && write(&mut stdout, &mut shown).is_err() {
            return Ok(None);
        }
        if is_over {
            return shell.wait().map(Some);
        }
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

/// Returns a standard stream without the library's buffer.
fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Reads what is there; `None` when nothing is.
fn read(from: &mut File, piece: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(piece) {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes what fits and keeps the rest.
fn write(to: &mut File, waiting: &mut Vec<u8>) -> io::Result<()> {
    match to.write(waiting) {
        Ok(count) => {
            waiting.drain(..count);
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
