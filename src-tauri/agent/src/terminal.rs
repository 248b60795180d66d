//! What goes over the stream of a terminal, once that is open or attached (see [`crate::protocol`] for what a frame is):
//! the app sends frames of [`Input`], the agent frames of [`Output`].

use serde::{Deserialize, Deserializer, Serialize};

use crate::protocol::{Bounded, Header, MOST_TERMINALS};

/// The most bytes of a frame's body, in either direction.
pub const PIECE: usize = 32 << 10;

/// The most bytes of a terminal's name in a tab.
const LONGEST_ID: usize = 100;

/// The most terminals of a tab.
pub const MOST_PANES: usize = 4;

/// The most characters of a tab's name.
pub const LONGEST_NAME: usize = 80;

/// Where the shell of a new terminal begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "where", rename_all = "snake_case")]
pub enum Begins {
    /// In a folder.
    At {
        /// Its path from the root of all, encoded as [`crate::path::encode`] does. It need not be in the workspace: what a
        /// shell may enter is its user's.
        path: String,
    },
    /// In the folder of another terminal: the one that its shell has told (OSC 7), or where the program in front is.
    Like {
        /// The other's name. There may be none.
        id: String,
    },
}

/// A tab of a window, with the terminals that it shows beside each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tab {
    /// What the user calls it; empty when that is left to the programs in it.
    pub name: String,
    /// Whether the terminals are one above the other.
    pub stacked: bool,
    /// At least one, at most [`MOST_PANES`]; of a stranger's, one more than there may be is kept.
    #[serde(deserialize_with = "panes")]
    pub panes: Vec<Pane>,
}

/// A terminal in a tab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pane {
    /// The terminal's name.
    pub id: String,
    /// How much of the tab's room it has, in percent.
    pub share: u8,
}

fn panes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pane>, D::Error> {
    Bounded::<Pane, MOST_PANES>::deserialize(deserializer).map(|Bounded(panes)| panes)
}

/// Returns whether tabs are within the bounds of what is kept. Whether there are such terminals is not asked.
#[must_use]
pub fn is_fit(tabs: &[Tab]) -> bool {
    let is_fit = |tab: &Tab| {
        (1..=MOST_PANES).contains(&tab.panes.len())
            && tab.name.chars().count() <= LONGEST_NAME
            && tab.panes.iter().all(|pane| pane.id.len() <= LONGEST_ID)
    };
    tabs.len() <= MOST_TERMINALS && tabs.iter().all(is_fit)
}

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
