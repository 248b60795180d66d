//! Words of others: what engines, registries, containers and programs say, made fit to be shown and to be logged.
//!
//! Nothing is understood here; that is for whoever asked.

use std::fmt::Write as _;

/// As many characters of somebody else's words are told.
const LENGTH_LIMIT: usize = 500;

/// Returns a text of others on one line and within [`LENGTH_LIMIT`], with what cannot be seen written out, and with
/// addresses without what may be secret in them: names, passwords and queries.
pub(crate) fn tamed(text: &str) -> String {
    fit(text, LENGTH_LIMIT)
}

/// Returns a text as [`tamed`] does, within a limit in characters.
pub(crate) fn fit(text: &str, limit: usize) -> String {
    // What is far beyond the limit need not be looked at.
    let start: String = text.chars().take(16 * limit).collect();
    let mut tame = String::new();
    for word in start.split_whitespace() {
        if !tame.is_empty() {
            tame.push(' ');
        }
        for c in without_secrets(word).chars() {
            if is_invisible(c) {
                // Writing to a String cannot fail.
                let _ = write!(tame, "{}", c.escape_unicode());
            } else {
                tame.push(c);
            }
        }
    }
    // One more is the mark of a cut that was made before.
    if tame.chars().count() <= limit + usize::from(tame.ends_with('…')) {
        return tame;
    }
    let mut cut: String = tame.chars().take(limit).collect();
    cut.push('…');
    cut
}

/// Returns whether a character does something other than to be seen: controls, and what turns, hides or imitates text.
/// The joiner that emoji are made with does no harm.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Takes names, passwords and queries out of the addresses in a word.
fn without_secrets(word: &str) -> String {
    let mut rest = word;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("://") {
        kept.push_str(before);
        kept.push_str("://");
        let end = after
            .find(['"', '\'', '`', '<', '>', ')', ',', ';'])
            .unwrap_or(after.len());
        let (address, beyond) = after.split_at(end);
        let host_end = address.find(['/', '?', '#']).unwrap_or(address.len());
        let (host, path) = address.split_at(host_end);
        kept.push_str(host.rsplit_once('@').map_or(host, |(_, host)| host));
        match path.find(['?', '#']) {
            Some(query) => {
                kept.push_str(path.get(..query).unwrap_or_default());
                kept.push_str("?…");
                // What a colon ends is a sentence that goes on.
                if address.ends_with(':') {
                    kept.push(':');
                }
            }
            None => kept.push_str(path),
        }
        rest = beyond;
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_bounded_visible_and_without_secrets() {
        for (said, told) in [
            ("no such host", "no such host"),
            ("  two\n lines\t", "two lines"),
            ("red \u{1b}[31mtext", "red \\u{1b}[31mtext"),
            ("please run \u{202e}later", "please run \\u{202e}later"),
            (
                "Get \"https://r.test/v2/?sig=abc&x=1\": denied",
                "Get \"https://r.test/v2/?…\": denied",
            ),
            (
                "Get https://r.test/v2/?sig=abc: denied",
                "Get https://r.test/v2/?…: denied",
            ),
            (
                "proxy http://anna:secret@p.test:3128/ refused",
                "proxy http://p.test:3128/ refused",
            ),
            (
                "<https://a.test?x>,<https://b.test/y#z>",
                "<https://a.test?…>,<https://b.test/y?…>",
            ),
            ("what? why://", "what? why://"),
        ] {
            assert_eq!(tamed(said), told);
            assert_eq!(tamed(told), told, "twice is once");
        }
        let long = tamed(&"A".repeat(200_000));
        assert_eq!(long.chars().count(), LENGTH_LIMIT + 1);
        assert!(long.ends_with('…'));
        assert_eq!(tamed(&long).chars().count(), LENGTH_LIMIT + 1);
    }
}
