//! What goes over the stream of a terminal, once that is open or attached (see [`crate::protocol`] for what a frame is):
//! the app sends frames of [`Input`], the agent frames of [`Output`].

use serde::{Deserialize, Serialize};

use crate::protocol::Header;

/// The most bytes of a frame's body, in either direction.
pub const PIECE: usize = 32 << 10;

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

/// What a terminal sends to the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Output {
    /// The body was written to the screen.
    Bytes,
    /// The shell has ended; nothing follows.
    End(End),
}

impl Header for Input {
    const MAX: usize = 1 << 10;
}

impl Header for Output {
    const MAX: usize = 4 << 10;
}

/// How a terminal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The shell's exit code; `null` when a signal ended it or it never began.
    pub code: Option<i32>,
    /// What happened, for people.
    pub message: String,
}
