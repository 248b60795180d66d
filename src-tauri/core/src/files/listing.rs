//! The answer to a list, held against what was asked. Whatever runs in a container can give it: the
//! window is told of no more entries than were asked for, of none twice, and of none that is not in the
//! directory or that shows another name than it opens.

use std::collections::HashSet;

use cove_agent::path::{WorkspacePath, display_name};
use cove_agent::protocol::{Entry, LIST_LIMIT};

/// The most bytes of a name in Linux.
const LONGEST_NAME: usize = 255;

/// Returns whether `entries` can be what is in the directory that was asked for.
pub(super) fn answers(asked: &str, entries: &[Entry]) -> bool {
    let Ok(directory) = WorkspacePath::parse(asked) else {
        return false;
    };
    let mut seen = HashSet::with_capacity(entries.len().min(LIST_LIMIT as usize));
    entries.len() <= LIST_LIMIT as usize
        && entries
            .iter()
            .all(|entry| is_in(&directory, entry) && seen.insert(entry.path.as_str()))
}

fn is_in(directory: &WorkspacePath, entry: &Entry) -> bool {
    // First, because nothing else should look at megabytes. Each byte takes at most five in a path.
    if entry.name.len() > 3 * LONGEST_NAME {
        return false;
    }
    let Ok(path) = WorkspacePath::parse(&entry.path) else {
        return false;
    };
    let name = path.name();
    path.components().split_last().map(|(_, parent)| parent) == Some(directory.components())
        && name.len() <= LONGEST_NAME
        && entry.name == display_name(name)
        && entry.path == path.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_agent::protocol::EntryKind;

    fn entry(name: &str, path: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            path: path.to_owned(),
            kind: EntryKind::File,
            target_kind: None,
            size: 1,
            modified_ms: 0,
            mode: 0o644,
            ignored: false,
            unreadable: false,
        }
    }

    #[track_caller]
    fn check(asked: &str, entries: &[Entry], expected: bool) {
        assert_eq!(
            answers(asked, entries),
            expected,
            "{asked}: {:.300}",
            format!("{entries:?}")
        );
    }

    #[test]
    fn what_is_in_the_directory_is_believed() {
        check("/workspace", &[], true);
        check(
            "/workspace",
            &[entry("a", "/workspace/a"), entry("b", "/workspace/b")],
            true,
        );
        check("/workspace//a/", &[entry("b", "/workspace/a/b")], true);
        check(
            "/workspace",
            &[entry("caf\u{fffd}", "/workspace/caf\u{fdd0}e9")],
            true,
        );
        let longest = "日".repeat(85);
        check(
            "/workspace",
            &[entry(&longest, &format!("/workspace/{longest}"))],
            true,
        );
        let no_text = "\u{fdd0}ff".repeat(255);
        check(
            "/workspace",
            &[entry(
                &"\u{fffd}".repeat(255),
                &format!("/workspace/{no_text}"),
            )],
            true,
        );
    }

    #[test]
    fn what_cannot_be_in_the_directory_is_not_believed() {
        for (name, path) in [
            ("again", "/workspace"),
            ("README.md", "/workspace/.secret"),
            ("x", "/etc/passwd"),
            ("y", "/workspace/../y"),
            ("y", "/workspace/sub/y"),
            ("..", "/workspace/.."),
            ("", "/workspace/"),
            ("a", "/workspace//a"),
            ("press me", "__proto__"),
            ("a/b", "/workspace/a/b"),
            ("a\0", "/workspace/a\0"),
        ] {
            check("/workspace", &[entry(name, path)], false);
        }
        for long in ["x".repeat(256), "x".repeat(12_000_000)] {
            check(
                "/workspace",
                &[entry(&long, &format!("/workspace/{long}"))],
                false,
            );
            check("/workspace", &[entry(&long, "/workspace/x")], false);
            check(
                "/workspace",
                &[entry("x", &format!("/workspace/{long}"))],
                false,
            );
        }
    }

    #[test]
    fn nothing_is_there_twice_and_no_more_than_was_asked_for() {
        check(
            "/workspace",
            &[entry("a", "/workspace/a"), entry("a", "/workspace/a")],
            false,
        );
        let many = |count: u32| -> Vec<Entry> {
            let names = (0..count).map(|number| format!("f{number}"));
            names
                .map(|name| entry(&name, &format!("/workspace/{name}")))
                .collect()
        };
        check("/workspace", &many(LIST_LIMIT), true);
        check("/workspace", &many(LIST_LIMIT + 1), false);
    }
}
