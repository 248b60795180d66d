//! Files of a session's workspace.

use serde::{Deserialize, Serialize};

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device.
    Other,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FileEntry {
    /// The name for display; bytes that are not UTF-8 show as U+FFFD.
    pub name: String,
    /// The path to pass back; opaque.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// What a symbolic link leads to; `null` when it is none, or leads nowhere or out of the workspace.
    pub target_kind: Option<FileKind>,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970, UTC.
    pub modified_ms: i64,
    /// Permission bits.
    pub mode: u32,
}

/// How file content is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub enum Encoding {
    /// The content is UTF-8 and stands as it is.
    #[serde(rename = "utf-8")]
    Utf8,
    /// The content is binary.
    #[serde(rename = "base64")]
    Base64,
}
