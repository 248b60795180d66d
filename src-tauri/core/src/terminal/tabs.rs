//! The tabs that a window shows terminals in, and which of them are beside each other. The agent keeps them with the
//! terminals, for the next window: what it answers is a stranger's, and is made to fit the terminals that there are.

use std::collections::HashSet;

use cove_agent::protocol::MOST_TERMINALS;
use cove_agent::terminal::{LONGEST_NAME, MOST_PANES, Pane, Tab};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::words;

/// A terminal of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ListedTerminal {
    /// The id by which the window knows it.
    pub terminal_id: String,
    /// Whether its shell goes on.
    pub running: bool,
}

/// The terminals of a session, and the tabs that they are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TerminalList {
    /// In the order in which they were opened.
    pub terminals: Vec<ListedTerminal>,
    /// Each terminal is in one of them.
    pub tabs: Vec<TerminalTab>,
}

/// A tab of a window, with the terminals that it shows beside each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TerminalTab {
    /// What the user calls it, at most 80 characters; empty when that is left to the programs in it.
    pub name: String,
    /// Whether the terminals are one above the other.
    pub stacked: bool,
    /// One to four.
    pub panes: Vec<TerminalPane>,
}

/// A terminal in a tab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TerminalPane {
    /// The id by which the window knows it.
    pub terminal_id: String,
    /// How much of the tab's room it has, in percent; those of a tab need not be a hundred together.
    pub share: u8,
}

/// Returns tabs as the agent keeps them.
///
/// # Errors
/// [`Error::Validation`] for more than there may be.
pub(crate) fn to_keep(tabs: Vec<TerminalTab>) -> Result<Vec<Tab>, Error> {
    let bounded = |tab: &TerminalTab| (1..=MOST_PANES).contains(&tab.panes.len());
    if tabs.len() > MOST_TERMINALS || !tabs.iter().all(bounded) {
        let message =
            format!("must be at most {MOST_TERMINALS} tabs, each of one to {MOST_PANES} terminals");
        return Err(Error::field("tabs", message));
    }
    let keep = |tab: TerminalTab| Tab {
        name: tame(&tab.name),
        stacked: tab.stacked,
        panes: tab
            .panes
            .into_iter()
            .map(|pane| Pane {
                id: pane.terminal_id.chars().take(LONGEST_ID).collect(),
                share: pane.share,
            })
            .collect(),
    };
    Ok(tabs.into_iter().map(keep).collect())
}

/// Returns the tabs that there are: those that were kept, without terminals that are gone, and each other terminal in one of
/// its own.
pub(crate) fn of(ids: &[String], kept: &[Tab]) -> Vec<TerminalTab> {
    let mut left: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut tabs = Vec::new();
    for Tab {
        name,
        stacked,
        panes,
    } in kept.iter().take(MOST_TERMINALS)
    {
        let panes: Vec<_> = panes
            .iter()
            .take(MOST_PANES)
            .filter(|pane| left.remove(pane.id.as_str()))
            .map(|pane| TerminalPane {
                terminal_id: pane.id.clone(),
                share: pane.share.min(100),
            })
            .collect();
        if !panes.is_empty() {
            tabs.push(TerminalTab {
                name: tame(name),
                stacked: *stacked,
                panes,
            });
        }
    }
    let others = ids.iter().filter(|id| left.contains(id.as_str()));
    tabs.extend(others.map(|id| TerminalTab {
        name: String::new(),
        stacked: false,
        panes: vec![TerminalPane {
            terminal_id: id.clone(),
            share: 100,
        }],
    }));
    tabs
}

/// The most characters of a terminal's id: those of ours have 36.
const LONGEST_ID: usize = 100;

fn tame(name: &str) -> String {
    let seen = name.trim().chars().filter(|c| !words::is_invisible(*c));
    seen.take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tab(name: &str, ids: &[&str]) -> Tab {
        let pane = |id: &&str| Pane {
            id: (*id).to_owned(),
            share: 50,
        };
        Tab {
            name: name.to_owned(),
            stacked: false,
            panes: ids.iter().map(pane).collect(),
        }
    }

    fn check(ids: &[&str], kept: &[Tab], expected: &[(&str, &[&str])]) {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        let found = of(&ids, kept);
        let found: Vec<_> = found
            .iter()
            .map(|tab| {
                let ids = tab.panes.iter().map(|pane| pane.terminal_id.as_str());
                (tab.name.as_str(), ids.collect::<Vec<_>>())
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, ids)| (*name, ids.to_vec()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_terminal_is_in_one_tab_whatever_was_kept() {
        check(&[], &[], &[]);
        check(&["a", "b"], &[], &[("", &["a"]), ("", &["b"])]);
        let kept = [tab("build", &["c", "a"]), tab("", &["b"])];
        check(
            &["a", "b", "c"],
            &kept,
            &[("build", &["c", "a"]), ("", &["b"])],
        );
        // One is new, one is gone, and of one tab nothing is left.
        check(&["a", "d"], &kept, &[("build", &["a"]), ("", &["d"])]);
        // Nobody is twice, and no tab has more than fit.
        let odd = [tab("1", &["a", "a"]), tab("2", &["a", "b", "x", "y", "c"])];
        check(
            &["a", "b", "c"],
            &odd,
            &[("1", &["a"]), ("2", &["b"]), ("", &["c"])],
        );
    }

    #[test]
    fn names_are_tamed_and_bounded_on_both_ways() {
        let strange = format!("a\u{1b}]0;\u{7}\u{202e} b{}", "x".repeat(200));
        let found = of(&["a".to_owned()], &[tab(&strange, &["a"])]);
        let name = &found[0].name;
        assert!(!name.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{name:?}");
        assert_eq!(name.chars().count(), LONGEST_NAME, "{name:?}");
        let kept = to_keep(found.clone()).unwrap();
        assert!(cove_agent::terminal::is_fit(&kept));
        assert_eq!(of(&["a".to_owned()], &kept), found);
    }

    #[test]
    fn more_than_there_may_be_is_refused() {
        let ids: Vec<_> = (0..65).map(|number| number.to_string()).collect();
        assert!(to_keep(of(&ids, &[])).is_err());
        let mut tabs = of(&ids[..1], &[]);
        tabs[0].panes = vec![tabs[0].panes[0].clone(); 5];
        assert!(to_keep(tabs.clone()).is_err());
        tabs[0].panes.clear();
        assert!(to_keep(tabs).is_err());
    }
}
