//! Tar archives, read as they come and written as they go, however they are cut on the way.
//!
//! A [`Reader`] follows the framing: it knows which member it is in, and whether the archive has come to its end
//! mark. Only that tells a whole archive from one that broke off, because the content of a file may look like an
//! end. It reads what people have: the old format, ustar, GNU's and POSIX's, with long names, sizes of any
//! length, and sparse files. [`write`] makes GNU's format, which every tar reads.
//!
//! Paths are taken apart here and checked: none is absolute, none holds `..`. What lies below what is held where
//! files are made. This module does no I/O and decompresses nothing.

mod read;
pub(crate) mod write;

use std::fmt;

use bytes::Bytes;

pub(crate) use self::read::Reader;

/// Bytes of a block, in which everything in an archive is counted.
const BLOCK: usize = 512;

/// Something in a tree of files, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The names from the root down, joined by `/`; empty for the root. No name is `.` or `..`.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits, `0o7777` at most.
    pub(crate) mode: u32,
    /// The number of the user that owns it.
    pub(crate) uid: u32,
    /// The number of the group that owns it.
    pub(crate) gid: u32,
    /// When its content was last changed.
    pub(crate) modified: Modified,
}

/// A moment: seconds since 1970 UTC, which may be negative, and nanoseconds behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Modified {
    /// Whole seconds.
    pub(crate) seconds: i64,
    /// Nanoseconds behind the second, below 1,000,000,000.
    pub(crate) nanoseconds: u32,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file. Its content follows as [`Event::Data`].
    File {
        /// Bytes, with the holes.
        size: u64,
        /// Where there is content between holes, in order; absent for a file without holes.
        extents: Option<Vec<Extent>>,
    },
    /// A symbolic link, and the text of it.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, and that file's path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Pipe,
    /// A device, which no session may have.
    Device,
}

/// A piece of a file that has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) length: u64,
}

/// What comes next in a tree of files on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// So many bytes of content will come. Only who has counted them says so.
    Total(u64),
    /// The file that began last changed while it was read: it does not count, and may come again.
    Void,
    /// A member begins, and the one before has ended.
    Member(Member),
    /// Content of the file that began last.
    Data {
        /// Where in the file it belongs.
        offset: u64,
        /// The content.
        bytes: Bytes,
    },
}

/// Why an archive cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// There is not a byte.
    #[error("it is empty")]
    Empty,
    /// Its beginning is no archive's.
    #[error("it is not a tar archive")]
    NotAnArchive,
    /// It ends within a member.
    #[error("it breaks off within `{}`", shown(.0))]
    CutWithin(Vec<u8>),
    /// It ends between members, without the mark of an end.
    #[error("it breaks off{}", behind(.0.as_deref()))]
    Cut(Option<Vec<u8>>),
    /// Something in it is no header, or contradicts itself.
    #[error("it is damaged{}: {}", behind(.0.as_deref()), .1)]
    Damaged(Option<Vec<u8>>, &'static str),
    /// A member's path leads out.
    #[error("`{}` leads out of the archive's own folder", shown(.0))]
    Outside(Vec<u8>),
    /// A member is a device.
    #[error("`{}` is a device", shown(.0))]
    Device(Vec<u8>),
    /// A member is of a kind that is not known.
    #[error("`{}` is of a kind that is not known here: `{}`", shown(.0), char::from(*.1))]
    UnknownKind(Vec<u8>, u8),
}

impl Kind {
    /// Returns the bytes of content that follow the member.
    pub(crate) fn stored(&self) -> u64 {
        match self {
            Self::File {
                extents: Some(extents),
                ..
            } => extents.iter().map(|extent| extent.length).sum(),
            Self::File {
                size,
                extents: None,
            } => *size,
            Self::Directory | Self::Symlink(_) | Self::HardLink(_) | Self::Pipe | Self::Device => 0,
        }
    }

    /// Returns the bytes that reading the member would give.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Directory | Self::Symlink(_) | Self::HardLink(_) | Self::Pipe | Self::Device => 0,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.path))
    }
}

/// Returns a path for people: without control characters, and not longer than a line or two.
pub(crate) fn shown(path: &[u8]) -> String {
    const MOST: usize = 160;
    let text = String::from_utf8_lossy(path);
    let harmless = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    let length = text.chars().count();
    if length <= MOST {
        return text.chars().map(harmless).collect();
    }
    let head = text.chars().take(MOST / 2);
    let tail = text.chars().skip(length - MOST / 2);
    let both = head.chain(std::iter::once('…')).chain(tail);
    both.map(harmless).collect()
}

fn behind(path: Option<&[u8]>) -> String {
    match path {
        Some(path) if !path.is_empty() => format!(" behind `{}`", shown(path)),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests;
