//! Names and paths of the workspace as text.
//!
//! A Linux name is bytes, a JSON string is not. [`encode`] maps every name to text and [`decode`]
//! accepts exactly the texts that [`encode`] makes, so the two are a bijection: what the app got it can
//! pass back, whatever bytes a name holds, and a text cannot hide a `/` or a `..` behind an escape.
//! For the eye there is [`display_name`]; it is never decoded.
//!
//! This module looks at text only. That a path stays inside the workspace on a disk full of symlinks is
//! held where files are opened.

use std::fmt;

/// The root of every path of the protocol.
pub const ROOT: &str = "/workspace";

/// Starts an escape: a noncharacter, which no sane name holds. Two lower-case hex digits follow.
const ESCAPE: char = '\u{FDD0}';

/// A path below the workspace, taken apart and checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkspacePath {
    components: Vec<Vec<u8>>,
}

/// Why a text is no path of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// It points out of the workspace, or would have to be resolved to know.
    Outside(String),
    /// It is not the encoding of any path.
    Invalid(String),
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(path) => write!(f, "`{path}` is outside of the workspace"),
            Self::Invalid(path) => write!(f, "`{path}` is not a valid path"),
        }
    }
}

impl std::error::Error for PathError {}

impl WorkspacePath {
    /// Returns the path that `text` names.
    ///
    /// Repeated and trailing slashes and `.` components are tolerated. `..` is refused rather than
    /// resolved: behind a symlink it does not mean what the text says.
    ///
    /// # Errors
    /// [`PathError::Outside`] for what does not begin with [`ROOT`] or holds `..`, and
    /// [`PathError::Invalid`] for what [`decode`] refuses or what holds a NUL.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let outside = || PathError::Outside(text.to_owned());
        let invalid = || PathError::Invalid(text.to_owned());
        let bytes = decode(text).ok_or_else(invalid)?;
        if bytes.contains(&0) {
            return Err(invalid());
        }
        if bytes.first() != Some(&b'/') {
            return Err(outside());
        }
        let mut components = Vec::new();
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(outside()),
                name => components.push(name.to_vec()),
            }
        }
        if components
            .first()
            .is_none_or(|first| first != ROOT.trim_start_matches('/').as_bytes())
        {
            return Err(outside());
        }
        components.remove(0);
        Ok(Self { components })
    }

    /// Returns the path of these names, from the root down.
    #[must_use]
    pub const fn of(components: Vec<Vec<u8>>) -> Self {
        Self { components }
    }

    /// Returns the names from the root down; none for the root itself.
    #[must_use]
    pub fn components(&self) -> &[Vec<u8>] {
        &self.components
    }

    /// Returns the path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut components = self.components.clone();
        components.push(name.to_vec());
        Self { components }
    }

    /// Returns the path of `name` in the directory that this path is in; for the root, in the root.
    #[must_use]
    pub fn beside(&self, name: &[u8]) -> Self {
        let mut components = self.components.clone();
        components.pop();
        components.push(name.to_vec());
        Self { components }
    }

    /// Returns the last name as bytes, or the name of the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.components
            .last()
            .map_or(ROOT.trim_start_matches('/').as_bytes(), Vec::as_slice)
    }
}

/// Writes the encoded text, without redundant slashes.
impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ROOT)?;
        for component in &self.components {
            write!(f, "/{}", encode(component))?;
        }
        Ok(())
    }
}

/// Returns the text for `bytes`.
///
/// Valid UTF-8 stands for itself. Every other byte becomes U+FDD0 and two lower-case hex digits, and so
/// do the three bytes of a genuine U+FDD0.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == ESCAPE {
                let mut buffer = [0; 4];
                escape(character.encode_utf8(&mut buffer).as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// Returns the bytes whose [`encode`] is exactly `text`, or `None` if there are none.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split(ESCAPE);
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        if !digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    // An escape where none is needed would give one name two spellings.
    (encode(&bytes) == text).then_some(bytes)
}

/// Returns `bytes` for showing: what is not UTF-8 becomes U+FFFD.
#[must_use]
pub fn display_name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        text.push(ESCAPE);
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip(bytes: &[u8]) {
        assert_eq!(decode(&encode(bytes)).as_deref(), Some(bytes), "{bytes:x?}");
    }

    #[test]
    fn every_name_of_one_or_two_bytes_comes_back() {
        for first in 0..=255_u8 {
            check_round_trip(&[first]);
            for second in 0..=255_u8 {
                check_round_trip(&[first, second]);
            }
        }
    }

    #[test]
    fn names_around_the_escape_character_come_back() {
        let escape = "\u{FDD0}".as_bytes();
        let alphabet: &[&[u8]] = &[
            escape,
            b"e",
            b"f",
            b"7",
            b"\xef",
            b"\xb7",
            b"\x90",
            b"\n",
            "é".as_bytes(),
        ];
        for first in alphabet {
            for second in alphabet {
                for third in alphabet {
                    for fourth in alphabet {
                        check_round_trip(&[*first, *second, *third, *fourth].concat());
                    }
                }
            }
        }
    }

    #[test]
    fn encodings_are_as_documented() {
        assert_eq!(encode("naïve name\n".as_bytes()), "naïve name\n");
        assert_eq!(encode(b"a\xffb"), "a\u{FDD0}ffb");
        assert_eq!(
            encode("\u{FDD0}".as_bytes()),
            "\u{FDD0}ef\u{FDD0}b7\u{FDD0}90"
        );
    }

    #[test]
    fn a_text_that_is_no_encoding_is_refused() {
        for text in [
            "\u{FDD0}",
            "\u{FDD0}f",
            "\u{FDD0}FF",
            "\u{FDD0}zz",
            "\u{FDD0}é",
            "\u{FDD0}61",
            "\u{FDD0}2e\u{FDD0}2e",
            "\u{FDD0}2f",
            "\u{FDD0}+f",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_display_name_replaces_what_is_not_text() {
        assert_eq!(display_name(b"a\xffb"), "a\u{FFFD}b");
    }

    fn check_parse(text: &str, expected: Result<&[&[u8]], PathError>) {
        let found = WorkspacePath::parse(text);
        let expected = expected.map(|names| WorkspacePath {
            components: names.iter().map(|name| name.to_vec()).collect(),
        });
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn a_path_below_the_workspace_is_taken_apart() {
        check_parse("/workspace", Ok(&[]));
        check_parse("/workspace/", Ok(&[]));
        check_parse("//workspace//./", Ok(&[]));
        check_parse("/workspace/a//b/./c/", Ok(&[b"a", b"b", b"c"]));
        check_parse("/workspace/...", Ok(&[b"..."]));
        check_parse("/workspace/a\u{FDD0}ff", Ok(&[b"a\xff"]));
    }

    #[test]
    fn a_path_that_leaves_the_workspace_is_outside() {
        for text in [
            "",
            "workspace",
            "a",
            ".",
            "/",
            "/etc/passwd",
            "/workspaces",
            "/workspacea/b",
            "/workspace/..",
            "/workspace/../workspace/a",
            "/workspace/a/../b",
            "/../workspace",
        ] {
            check_parse(text, Err(PathError::Outside(text.to_owned())));
        }
    }

    #[test]
    fn a_path_that_is_no_encoding_or_holds_a_nul_is_invalid() {
        for text in [
            "/workspace/\0",
            "/workspace/\u{FDD0}2e\u{FDD0}2e",
            "/workspace/\u{FDD0}",
        ] {
            check_parse(text, Err(PathError::Invalid(text.to_owned())));
        }
    }

    #[test]
    fn a_parsed_path_is_written_as_it_was_without_redundant_slashes() {
        let path = WorkspacePath::parse("/workspace//a\u{FDD0}ff/").unwrap();
        assert_eq!(path.join(b"b").to_string(), "/workspace/a\u{FDD0}ff/b");
        assert_eq!(path.join(b"b").beside(b"c"), path.join(b"c"));
        assert_eq!(path.name(), b"a\xff");
        assert_eq!(WorkspacePath::default().to_string(), "/workspace");
        assert_eq!(WorkspacePath::default().name(), b"workspace");
    }
}
