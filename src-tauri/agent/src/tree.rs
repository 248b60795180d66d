//! A tree of files on its way between a container and the app: what `agent pack` writes and `agent unpack`
//! reads, as frames of [`crate::protocol`].
//!
//! It is told as one walks it: into a directory, what is in it, and out again. So every name is a single one, no
//! path can lead anywhere, and no depth is too deep. The tree is whole when [`Piece::End`] has come, and only
//! then. This module does no I/O.

use serde::{Deserialize, Serialize};

use crate::path;
use crate::protocol::{Header, MAX_REQUEST_HEADER};

/// The most extents that are told of a sparse file; small holes count as content where there are more.
pub const MOST_EXTENTS: usize = 4096;

/// The bytes of content in one frame, at most.
pub const PIECE: usize = 256 << 10;

/// The folder in the workspace's root that holds what was deleted. It is shown nowhere, and no copy has it.
pub const TRASH: &str = ".cove-trash";

/// The file in the agent's directory that stands there until the files of a new session have come in whole.
pub const UNFILLED: &str = "unfilled";

/// The next piece of a tree. Names are single ones, encoded, see [`crate::path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "piece", rename_all = "snake_case")]
pub enum Piece {
    /// What there is, as far as it has been counted.
    Total(Total),
    /// What is known of the root.
    Root {
        /// Of the root.
        facts: Facts,
    },
    /// What follows is in this directory of the one before.
    Enter {
        /// Its name.
        name: String,
        /// Absent for one that is only on the way.
        facts: Option<Facts>,
    },
    /// What follows is in the directory above again.
    Leave,
    /// A regular file begins.
    File {
        /// Its name.
        name: String,
        /// Of the file.
        facts: Facts,
        /// Bytes, with the holes.
        size: u64,
        /// For a file with holes, where its content begins and how long it is, in order.
        extents: Option<Vec<(u64, u64)>>,
    },
    /// The body of this frame is content of the file that began last.
    Content {
        /// Where it belongs.
        offset: u64,
    },
    /// The file that began last is whole.
    Whole,
    /// The file that began last changed meanwhile: it counts as not told. It may begin anew.
    Void,
    /// A symbolic link.
    Symlink {
        /// Its name.
        name: String,
        /// Of the link itself.
        facts: Facts,
        /// Its text, encoded.
        target: String,
    },
    /// Another name of a file that was told before.
    HardLink {
        /// The new name.
        name: String,
        /// The names that lead to the file from the root.
        path: Vec<String>,
    },
    /// A named pipe.
    Pipe {
        /// Its name.
        name: String,
        /// Of the pipe.
        facts: Facts,
    },
    /// Nothing is missing. Also the answer of who unpacks it.
    End,
    /// There will be no end.
    Failed(Failed),
}

/// What a tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Names in it.
    pub names: u64,
    /// Bytes that reading all files would give.
    pub bytes: u64,
    /// Bytes of content in them: holes do not count.
    pub content: u64,
    /// Bytes that they take on the disk.
    pub stored: u64,
    /// The last change, in milliseconds since 1970.
    pub newest_ms: Option<i64>,
    /// Whether this is all.
    pub is_all: bool,
    /// Bytes that the user may still write to the disk; absent where the kernel or an older agent does not say.
    #[serde(default)]
    pub free: Option<u64>,
    /// Bytes that the disk has in all.
    #[serde(default)]
    pub capacity: Option<u64>,
}

/// What is known of something beside its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// The user that owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// When it was last changed: seconds since 1970, and nanoseconds behind them.
    pub modified: (i64, u32),
}

/// Why a tree did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What to act on.
    pub why: Why,
    /// What to show.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A file changed whenever it was read.
    Changed,
    /// The disk is full, or would be.
    NoSpace,
    /// What was told cannot be made, or makes no sense.
    Invalid,
    /// Everything else.
    Io,
}

impl Header for Piece {
    const MAX: usize = MAX_REQUEST_HEADER;
}

/// Returns the name that `text` encodes, if it is a single one.
#[must_use]
pub fn name(text: &str) -> Option<Vec<u8>> {
    let name = path::decode(text)?;
    let is_single =
        !matches!(&*name, b"" | b"." | b"..") && !name.iter().any(|b| matches!(b, 0 | b'/'));
    is_single.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_an_agent_that_knows_no_disk_is_read() {
        let said = r#"{"names":1,"bytes":2,"content":3,"stored":4,"newest_ms":5,"is_all":true}"#;
        let total: Total = serde_json::from_str(said).unwrap();
        assert_eq!((total.stored, total.is_all), (4, true));
        assert_eq!((total.free, total.capacity), (None, None));
    }

    #[test]
    fn only_a_single_name_is_one() {
        for text in ["", ".", "..", "a/b", "/", "../x", "a\0", "\u{FDD0}2f"] {
            assert_eq!(name(text), None, "{text:?}");
        }
        assert_eq!(name("..."), Some(b"...".to_vec()));
        assert_eq!(name("a\u{FDD0}ff"), Some(b"a\xff".to_vec()));
    }
}
