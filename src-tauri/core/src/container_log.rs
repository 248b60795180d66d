//! What the first process of a container has printed, made fit to be shown: lines of text, within bounds, in which nothing
//! acts. What a program prints is a stranger's: escape sequences are not obeyed. Those for colours are left out,
//! all other controls are shown as the characters that stand for them.
//!
//! Which container and how it is read is not decided here.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::words;

/// The most lines that are read back.
pub const MOST_LINES: usize = 10_000;
/// The most bytes of text that are read back.
pub const MOST_BYTES: usize = 2 << 20;
/// The most bytes of a line; the rest of a longer one is left out, and that is said.
const LONGEST_LINE: usize = 4_096;

/// The end of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct LogText {
    /// The lines, each with its line break. No other control characters are in it but tabs.
    pub text: String,
    /// Whether earlier lines were asked for and left out, because there were too many.
    pub cut: bool,
}

/// Turns pieces of two outputs into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    out: Line,
    err: Line,
}

/// A line that has not come to its end.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    left_out: u64,
}

/// Which of the two outputs it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Printed {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Lines {
    /// Takes what was printed, and hands on each line that is complete.
    pub(crate) fn push(&mut self, printed: Printed, bytes: &[u8], mut each: impl FnMut(String)) {
        let line = match printed {
            Printed::Out => &mut self.out,
            Printed::Err => &mut self.err,
        };
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            line.add(part);
            each(line.take());
        }
        line.add(last);
    }

    /// Hands on what has no line break, because nothing comes any more.
    pub(crate) fn end(&mut self, mut each: impl FnMut(String)) {
        for line in [&mut self.out, &mut self.err] {
            if !line.bytes.is_empty() {
                each(line.take());
            }
        }
    }
}

impl Line {
    fn add(&mut self, part: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.bytes.len());
        let (kept, left_out) = part.split_at(room.min(part.len()));
        self.bytes.extend_from_slice(kept);
        self.left_out = self.left_out.saturating_add(left_out.len() as u64);
    }

    fn take(&mut self) -> String {
        let mut text = harmless(&self.bytes);
        if self.left_out > 0 {
            // Writing into a text cannot fail.
            let _ = write!(text, "… ({} more bytes)", self.left_out);
        }
        text.push('\n');
        self.bytes.clear();
        self.left_out = 0;
        text
    }
}

/// The last lines of a log that is read to its end.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
    cut: bool,
}

impl Tail {
    /// Adds a line, and forgets those that are too many.
    pub(crate) fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MOST_BYTES || self.lines.len() > MOST_LINES {
            let Some(first) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= first.len();
            self.cut = true;
        }
    }

    /// Returns the lines that are left.
    pub(crate) fn into_text(self, is_whole: bool) -> LogText {
        LogText {
            text: self.lines.into_iter().collect(),
            cut: self.cut || !is_whole,
        }
    }
}

/// Returns a line without what acts: colours are left out, all other controls and what is invisible are written out.
fn harmless(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.strip_suffix('\r').unwrap_or(&text);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = colour(rest) {
            rest = after;
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\t' => shown.push(c),
            // The pictures of the control characters lie in their order.
            '\0'..='\u{1f}' => {
                shown.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'));
            }
            '\u{7f}' => shown.push('\u{2421}'),
            c if words::is_invisible(c) => {
                // Writing into a text cannot fail.
                let _ = write!(shown, "{}", c.escape_unicode());
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Returns what follows a sequence that only sets colours, if the text begins with one.
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    parameters.get(end..)?.strip_prefix('m')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[(Printed, &[u8])]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for (printed, bytes) in pieces {
            lines.push(*printed, bytes, |line| told.push(line));
        }
        lines.end(|line| told.push(line));
        told
    }

    #[test]
    fn nothing_that_a_container_prints_acts_where_it_is_shown() {
        for (printed, shown) in [
            (&b"plain"[..], "plain"),
            (b"tab\there", "tab\there"),
            (b"\x1b[1;31mred\x1b[0m text\x1b[m", "red text"),
            (b"gone\x1b[2J\x1b[H", "gone\u{241b}[2J\u{241b}[H"),
            (b"\x1b]0;title\x07", "\u{241b}]0;title\u{2407}"),
            (b"\x1b[31", "\u{241b}[31"),
            (b"10 %\r20 %\r", "10 %\u{240d}20 %"),
            (b"a\x08b\x7f\x00", "a\u{2408}b\u{2421}\u{2400}"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("txt.\u{202e}exe".as_bytes(), "txt.\\u{202e}exe"),
            ("\u{2028}".as_bytes(), "\\u{2028}"),
            ("grün 👩‍🚀".as_bytes(), "grün 👩‍🚀"),
        ] {
            let told = lines_of(&[(Printed::Out, printed)]);
            assert_eq!(told, [format!("{shown}\n")], "{printed:?}");
        }
    }

    #[test]
    fn lines_of_two_outputs_do_not_run_into_each_other() {
        let told = lines_of(&[
            (Printed::Out, b"one "),
            (Printed::Err, b"bad\nworse"),
            (Printed::Out, b"line\n\nnext\n"),
            (Printed::Err, b" yet\n"),
        ]);
        let expected = ["bad\n", "one line\n", "\n", "next\n", "worse yet\n"];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_line_without_end_is_cut_and_says_by_how_much() {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for _ in 0..1_000 {
            lines.push(Printed::Out, &[b'x'; 10_000], |line| told.push(line));
            assert!(lines.out.bytes.capacity() <= 4 * LONGEST_LINE);
        }
        lines.push(Printed::Out, b"\nnext\n", |line| told.push(line));
        let left_out = 10_000_000 - LONGEST_LINE;
        assert!(told[0].starts_with("xxx"));
        assert!(told[0].ends_with(&format!("x… ({left_out} more bytes)\n")));
        assert_eq!(told[1..], ["next\n"]);
    }

    #[test]
    fn of_a_long_log_the_end_is_kept_within_both_bounds() {
        let mut tail = Tail::default();
        for number in 0..MOST_LINES + 5 {
            tail.add(format!("{number}\n"));
        }
        let told = tail.into_text(true);
        assert!(told.cut);
        assert_eq!(told.text.lines().count(), MOST_LINES);
        assert_eq!(told.text.lines().next(), Some("5"));

        let mut tail = Tail::default();
        for _ in 0..1_000 {
            tail.add("y".repeat(LONGEST_LINE));
        }
        assert!(tail.bytes <= MOST_BYTES);
        assert!(tail.into_text(true).cut);
        assert!(!Tail::default().into_text(true).cut);
    }
}
