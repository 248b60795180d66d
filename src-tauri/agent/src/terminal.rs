//! `agent terminal`: a shell on a TTY of its own. The TTY is made here, inside the container, so that
//! output travels as plain bytes, the size changes in order with what is typed, and the shell is hung
//! up when the app goes away, however that happens.
//!
//! Frames of [`Input`] come in on stdin (see [`crate::protocol`] for what a frame is). The screen's
//! bytes go out on stdout as they are. When the shell has ended, one [`End`] is written to stderr as
//! JSON, and nothing else ever is.

#[cfg(target_os = "linux")]
mod pty;

#[cfg(target_os = "linux")]
pub use self::pty::run;

use serde::{Deserialize, Serialize};

use crate::protocol::Header;

/// What the app sends to a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// The body was typed or pasted.
    Bytes,
    /// The size of the screen changed.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
}

impl Header for Input {
    const MAX: usize = 1 << 10;
}

/// How a terminal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The shell's exit code; `null` when a signal ended it or it never began.
    pub code: Option<i32>,
    /// What happened, for people.
    pub message: String,
}
