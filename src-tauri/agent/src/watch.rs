//! What goes over the stream of a watch, once that is open (see [`crate::protocol`] for what a frame is): the app sends
//! frames of [`Watched`], the agent frames of [`News`].
//!
//! What is watched is a set of paths. A folder is changed when an entry comes, goes or is written, a file when it comes, goes
//! or is written; what is in a folder of a folder is not seen. A path at which there is nothing may be watched, too.

use serde::{Deserialize, Serialize};

use crate::protocol::Header;

/// The most paths that are watched on one stream.
pub const MOST_WATCHED: usize = 1_000;

/// The most bytes that the paths of a [`Watched`] may have together, as they stand in JSON.
pub const MOST_WATCHED_BYTES: usize = 512 << 10;

/// The most bytes of a frame of [`News`].
pub const MOST_NEWS: usize = 64 << 10;

/// What is to be watched from now on, in place of what was. Each is answered by one [`News::Watching`], in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Encoded, see [`crate::path`].
    pub paths: Vec<String>,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum News {
    /// What was asked for is watched.
    Watching {
        /// Whether some of it is not, because the system lets a user watch no more.
        limited: bool,
    },
    /// Something is not as it was.
    Changed {
        /// What has changed of what is watched; other names for the same file are told, too.
        paths: Vec<String>,
        /// Whether there were more changes than the system keeps. Then all that is watched counts as changed.
        overflowed: bool,
    },
}

impl Header for Watched {
    const MAX: usize = MOST_WATCHED_BYTES + (16 << 10);
}

impl Header for News {
    const MAX: usize = MOST_NEWS;
}
