//! A terminal: a shell on a TTY of its own, and what it shows. It goes on whether or not anybody looks.
//!
//! What it wrote is kept as it was, up to a bound, and so is what scrolled up on its main screen. Whoever asks for more of the
//! output than is kept gets that, and then the screen as a model of it has it: a program that fills the screen may have begun
//! long before.
//!
//! While it is shown somewhere, no more is read of the TTY than can be sent, so that a program that writes without end
//! waits for whoever looks; while it is shown nowhere, it writes on, and the oldest is forgotten.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::system::uname;
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use vt100::Callbacks;

use super::is_for_later;
use crate::processes;
use crate::terminal::End;

/// Bytes of output that are kept for whoever looks again.
const KEPT: usize = 256 << 10;
/// Bytes of output to the main screen that are kept: some ten thousand lines.
const HISTORY: usize = 1 << 20;
/// The most columns and rows that the model of a screen has: 16 MB of it.
const LARGEST: (u16, u16) = (1_000, 500);
/// What a program asks with for the other screen begins so; the rest is shorter than this.
const MODE: (&[u8], usize) = (b"\x1b[?", 32);
/// Output that whoever looks has not been sent; beyond, the TTY is not read.
const AHEAD: u64 = 64 << 10;
/// The most bytes of an address that a shell tells its folder by; the model of the screen keeps no more of a string.
const LONGEST_ADDRESS: usize = 1_000;
/// Typed bytes that may wait for the program to read them; beyond, no more are taken from the app.
const WAITING: usize = 64 << 10;

/// A terminal and its shell. Dropping it hangs up.
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
    history: History,
}

/// What is to be shown to somebody who has not seen the output from its beginning.
struct History {
    screen: vt100::Parser<Told>,
    /// What was written to the main screen.
    main: VecDeque<u8>,
    /// Whether the beginning of that is lost.
    is_cut: bool,
    /// The beginning of a sequence that may lead to another screen.
    begun: Vec<u8>,
}

impl Terminal {
    /// Begins a terminal of so many columns and rows, in which programs may have so many files open, in a folder whose path
    /// is encoded.
    ///
    /// # Errors
    /// Says how that failed, for people.
    pub(super) fn open(
        size: (u16, u16),
        open_files: Option<u64>,
        folder: Option<&str>,
    ) -> Result<Self, String> {
        Self::begin(size, open_files, folder).map_err(|error| {
            if error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error()) {
                "The session's process limit is used up, so that no shell can be started."
                    .to_owned()
            } else {
                format!("The terminal failed: {error}.")
            }
        })
    }

    fn begin(
        (cols, rows): (u16, u16),
        open_files: Option<u64>,
        folder: Option<&str>,
    ) -> io::Result<Self> {
        let (tty, slave) = open_tty()?;
        resize(&tty, cols, rows)?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("shell");
        if let Some(open_files) = open_files {
            command.args(["--open-files", &open_files.to_string()]);
        }
        if let Some(folder) = folder {
            // It goes there by itself: on some file systems that takes long.
            command.args(["--folder", folder]);
        }
        let shell = command
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
            history: History::new(cols, rows),
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

    /// Reads and writes what can be without waiting, at most a piece.
    pub(super) fn go_on(&mut self, sent: Option<u64>, piece: &mut [u8]) {
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
        if !self.reads(sent) {
            self.tty = Some(tty);
            return;
        }
        match tty.read(piece) {
            Ok(count @ 1..) => {
                self.keep(piece.get(..count).unwrap_or_default());
                self.tty = Some(tty);
            }
            Err(error) if is_for_later(&error) && self.status.is_none() => self.tty = Some(tty),
            // `EIO` says that nobody has the other side open any more. A shell that goes on without a terminal is waited for.
            Ok(_) | Err(_) => self.typed.clear(),
        }
    }

    /// Returns what the shell has begun and goes on, see [`processes::of_shell`]; nothing once the shell has ended.
    pub(super) fn programs(&self) -> Vec<String> {
        if self.status.is_some() {
            return Vec::new();
        }
        let in_front = self.tty.as_ref().and_then(|tty| tcgetpgrp(tty).ok());
        processes::of_shell(Pid::from_child(&self.shell), in_front)
    }

    /// Returns the folder in which its user is, as far as that can be known: the one that the shell has told, or else that
    /// of the program in front, or of the shell.
    pub(super) fn folder(&self) -> Option<Vec<u8>> {
        let told = self.history.screen.callbacks().folder.clone();
        told.or_else(|| {
            let in_front = self.tty.as_ref().and_then(|tty| tcgetpgrp(tty).ok());
            // A child of the agent's own that has ended is no longer this one.
            let shell = self.status.is_none().then(|| Pid::from_child(&self.shell));
            let mut pids = in_front.into_iter().chain(shell);
            let folder = pids.find_map(processes::folder_of);
            folder.map(|folder| folder.into_os_string().into_vec())
        })
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
        self.history.keep(bytes);
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

    pub(super) fn resize(&mut self, cols: u16, rows: u16) {
        self.history.resize(cols, rows);
        if let Some(tty) = &self.tty {
            // One that nobody has open needs no size.
            let _ = resize(tty, cols, rows);
        }
    }

    /// Returns from where on the output goes on for whoever has it up to there, and what is to be shown before that: nothing
    /// if all of it is kept.
    pub(super) fn resume(&self, wanted: u64) -> (u64, Vec<u8>) {
        let first = self.written - self.recent.len() as u64;
        if wanted >= first {
            return (wanted.min(self.written), Vec::new());
        }
        (self.written, self.history.shown())
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

impl History {
    fn new(cols: u16, rows: u16) -> Self {
        let (rows, cols) = size_of(cols, rows);
        Self {
            screen: vt100::Parser::new_with_callbacks(rows, cols, 0, Told::default()),
            main: VecDeque::new(),
            is_cut: false,
            begun: Vec::new(),
        }
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let (rows, cols) = size_of(cols, rows);
        self.screen.screen_mut().set_size(rows, cols);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let mut joined = std::mem::take(&mut self.begun);
        joined.extend_from_slice(bytes);
        let begun = begun_mode(&joined);
        self.begun = joined.split_off(begun);
        // Where the screen may be another behind it, a piece ends.
        let mut rest = joined.as_slice();
        while !rest.is_empty() {
            let end = end_of_mode(rest).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(end);
            let was_main = !self.screen.screen().alternate_screen();
            self.screen.process(piece);
            if was_main {
                self.main.extend(piece);
                if self.screen.screen().alternate_screen() {
                    self.forget_mode();
                }
            }
            rest = behind;
        }
        let excess = self.main.len().saturating_sub(HISTORY);
        self.is_cut |= excess > 0;
        self.main.drain(..excess);
    }

    /// Takes the last sequence out of what was written to the main screen, since it leads to the other.
    fn forget_mode(&mut self) {
        let from = self.main.len().saturating_sub(MODE.1 + MODE.0.len());
        let begin = self.main.iter().skip(from).rposition(|byte| *byte == 0x1b);
        if let Some(begin) = begin {
            self.main.truncate(from + begin);
        }
    }

    /// Returns what shows the screen as it is, with what has scrolled up on the main one.
    fn shown(&self) -> Vec<u8> {
        // The middle of a character or of a sequence would show as rubbish.
        let line = self.main.iter().position(|byte| *byte == b'\n');
        let skipped = line.filter(|_| self.is_cut).map_or(0, |line| line + 1);
        let mut shown: Vec<u8> = self.main.iter().skip(skipped).copied().collect();
        let screen = self.screen.screen();
        if screen.alternate_screen() {
            shown.extend_from_slice(b"\x1b[?1049h");
        }
        shown.extend_from_slice(screen.state_formatted().as_bytes());
        // What follows is its end.
        shown.extend_from_slice(&self.begun);
        shown
    }
}

/// What programs have told of themselves.
#[derive(Default)]
struct Told {
    /// The folder that a shell is in (OSC 7), of this machine.
    folder: Option<Vec<u8>>,
}

impl Callbacks for Told {
    fn unhandled_osc(&mut self, _: &mut vt100::Screen, parameters: &[&[u8]]) {
        if let [b"7", address @ ..] = parameters {
            let host = uname();
            self.folder = folder_in(&address.join(&b';'), host.nodename().to_bytes());
        }
    }
}

/// Returns the folder that an address as of OSC 7 stands for, `file://host/path`: `None` when it is none, or of another
/// machine, as behind `ssh`.
fn folder_in(address: &[u8], own_host: &[u8]) -> Option<Vec<u8>> {
    // What is longer is cut short before it gets here.
    if address.len() > LONGEST_ADDRESS {
        return None;
    }
    let rest = address.strip_prefix(b"file://")?;
    let (host, path) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)?;
    if !(host.is_empty() || host == b"localhost" || host.eq_ignore_ascii_case(own_host)) {
        return None;
    }
    let mut folder = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        folder.push(if *byte == b'%' {
            let mut digit = || char::from(*rest.next()?).to_digit(16);
            u8::try_from(digit()? << 4 | digit()?).ok()?
        } else {
            *byte
        });
    }
    (!folder.contains(&0)).then_some(folder)
}

fn size_of(cols: u16, rows: u16) -> (NonZeroU16, NonZeroU16) {
    let within = |count: u16, most| NonZeroU16::new(count.min(most)).unwrap_or(NonZeroU16::MIN);
    (within(rows, LARGEST.1), within(cols, LARGEST.0))
}

/// Returns where a sequence begins that may lead to another screen and is not whole, or where all ends.
fn begun_mode(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(MODE.1);
    let last = bytes.get(from..).unwrap_or_default();
    let Some(begin) = last.iter().rposition(|byte| *byte == 0x1b) else {
        return bytes.len();
    };
    let sequence = last.get(begin..).unwrap_or_default();
    let is_begun = sequence.iter().enumerate().all(|(at, byte)| {
        let expected = MODE.0.get(at);
        expected.map_or_else(
            || byte.is_ascii_digit() || *byte == b';',
            |expected| expected == byte,
        )
    });
    if is_begun { from + begin } else { bytes.len() }
}

/// Returns where the first sequence ends that may lead to another screen.
fn end_of_mode(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let begin = rest.windows(MODE.0.len()).position(|seen| seen == MODE.0)?;
        let parameters = rest.get(begin + MODE.0.len()..)?;
        let length = parameters
            .iter()
            .position(|byte| !(byte.is_ascii_digit() || *byte == b';'))?;
        let end = from + begin + MODE.0.len() + length;
        if matches!(bytes.get(end), Some(b'h' | b'l')) {
            return Some(end + 1);
        }
        from = end;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a screen shows to which this was written.
    fn screen(rows: u16, cols: u16, bytes: &[u8]) -> vt100::Parser {
        let (rows, cols) = size_of(cols, rows);
        let mut parser = vt100::Parser::new(rows, cols, 0);
        parser.process(bytes);
        parser
    }

    fn kept(pieces: &[&[u8]]) -> History {
        let mut history = History::new(20, 5);
        for piece in pieces {
            history.keep(piece);
        }
        history
    }

    /// What is shown to somebody who comes later is the screen as it is.
    fn check(pieces: &[&[u8]]) -> Vec<u8> {
        let shown = kept(pieces).shown();
        let (expected, found) = (screen(5, 20, &pieces.concat()), screen(5, 20, &shown));
        let (expected, found) = (expected.screen(), found.screen());
        assert_eq!(found.contents(), expected.contents());
        assert_eq!(found.cursor_position(), expected.cursor_position());
        assert_eq!(found.alternate_screen(), expected.alternate_screen());
        assert_eq!(
            found.input_mode_formatted(),
            expected.input_mode_formatted()
        );
        shown
    }

    #[test]
    fn a_screen_is_shown_as_it_is_with_what_was_above_it() {
        check(&[b"one\r\ntwo\r\n$ "]);
        check(&[b"\x1b[31mred\x1b[2;5Hmoved\x1b[?2004h\x1b[?1h"]);
        let editor: &[u8] = b"$ vi\r\n\x1b[?1049h\x1b[?1000h\x1b[H~\r\n~\x1b[3;3H";
        let shown = check(&[editor]);
        assert!(
            shown.starts_with(b"$ vi\r\n\x1b[?1049h"),
            "{}",
            shown.escape_ascii()
        );
        let shown = check(&[editor, b"more\x1b[?1049l$ done"]);
        assert!(
            shown.starts_with(b"$ vi\r\n$ done"),
            "{}",
            shown.escape_ascii()
        );
    }

    #[test]
    fn what_leads_to_another_screen_is_found_however_it_is_cut() {
        let stream = b"$ vi\r\n\x1b[?25l\x1b[?1049;1h~~~\x1b[?1049l$ ";
        for at in 0..=stream.len() {
            let (first, second) = stream.split_at(at);
            let history = kept(&[first, second]);
            let main: Vec<u8> = history.main.iter().copied().collect();
            let shown = screen(5, 20, &main);
            assert_eq!(shown.screen().contents(), "$ vi\n$ ", "cut at {at}");
            check(&[first, second]);
        }
    }

    fn told(bytes: &[u8]) -> Option<String> {
        let history = kept(&[bytes]);
        let folder = history.screen.callbacks().folder.clone();
        folder.map(|folder| String::from_utf8(folder).unwrap())
    }

    #[test]
    fn the_folder_that_a_shell_tells_is_known() {
        let check = |written: &str, expected: Option<&str>| {
            assert_eq!(told(written.as_bytes()).as_deref(), expected, "{written:?}");
        };
        check("$ ", None);
        check("\x1b]7;file:///workspace/a\x07", Some("/workspace/a"));
        check(
            "\x1b]7;file://localhost/a%20b%C3%A9;c\x1b\\",
            Some("/a bé;c"),
        );
        let own = uname().nodename().to_str().unwrap().to_owned();
        check(&format!("\x1b]7;file://{own}/a\x07"), Some("/a"));
        // The last one counts, also where it says nothing.
        let first = "\x1b]7;file:///a\x07";
        check(&format!("{first}\x1b]7;file:///b\x07"), Some("/b"));
        for none in [
            "",
            "/a",
            "file:",
            "file://host-of-others/a",
            "file://",
            "http://localhost/a",
            "file:///a%0",
            "file:///a%zz",
            "file:///a%00b",
        ] {
            check(&format!("{first}\x1b]7;{none}\x07"), None);
        }
        let long = "a".repeat(LONGEST_ADDRESS);
        check(&format!("{first}\x1b]7;file:///{long}\x07"), None);
        check(&format!("{first}\x1b]7;file:///{long}{long}\x07"), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_the_model_takes_it(
            pieces in proptest::collection::vec(written(), 0..60),
            sizes in proptest::collection::vec((0..300_u16, 0..300_u16), 0..5),
        ) {
            let mut history = History::new(80, 24);
            let mut sizes = sizes.into_iter();
            for (number, piece) in pieces.iter().enumerate() {
                history.keep(piece);
                if number % 10 == 9 && let Some((cols, rows)) = sizes.next() {
                    history.resize(cols, rows);
                }
            }
            history.shown();
        }
    }

    /// Returns what a program may write: text, bytes of any kind, and sequences with parameters of any size.
    fn written() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;

        let number = prop_oneof![
            Just(String::new()),
            (0..100_u32).prop_map(|number| number.to_string()),
            any::<u64>().prop_map(|number| number.to_string()),
        ];
        let parameters = prop::collection::vec(number, 0..4).prop_map(|numbers| numbers.join(";"));
        let sequence =
            ("[ ?>=!]{0,1}", parameters, 0x40..0x7f_u8).prop_map(|(mark, parameters, last)| {
                [b"\x1b[", mark.as_bytes(), parameters.as_bytes(), &[last]].concat()
            });
        prop_oneof![
            4 => sequence,
            2 => "[ -~äé日🚀\u{301}\u{200d}\r\n\t\u{8}]{0,200}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..50),
            1 => (0x20..0x7f_u8).prop_map(|last| vec![0x1b, last]),
        ]
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_it_begins_at_a_line() {
        let mut history = History::new(80, 24);
        for number in 0..200_000 {
            history.keep(format!("line {number}\r\n").as_bytes());
        }
        assert_eq!(history.main.len(), HISTORY);
        let shown = history.shown();
        assert!(
            shown.starts_with(b"line "),
            "{}",
            shown[..20].escape_ascii()
        );
        // Whatever size is asked for.
        history.resize(u16::MAX, u16::MAX);
        history.resize(0, 0);
        history.keep(b"x");
    }
}
