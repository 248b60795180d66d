//! The app's own folder: the names that users gave to sessions, the history of runs, the engines that were chosen or
//! have sessions, those sessions, the journal, and text that was not saved. Each file is read without failing and replaced as a whole, so that a full disk or a power cut leaves the
//! last one that was complete.
//!
//! Settings are not here: the shell keeps them by its own means.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::drafts::Drafts;
use crate::engine_id::RememberedEngines;
use crate::estimate::History;
use crate::journal::{Journal, Record};
use crate::own_file;
use crate::remembered::RememberedSession;
use crate::session::SessionId;

/// Bytes that none of these files comes near; what is larger is somebody else's or damaged.
const MOST_BYTES: u64 = 4_000_000;

const NAMES: KeptFile = KeptFile {
    name: "names.json",
    key: "names",
};
const HISTORY: KeptFile = KeptFile {
    name: "history.json",
    key: "history",
};
const ENGINES: KeptFile = KeptFile {
    name: "engines.json",
    key: "engines",
};
const SESSIONS: KeptFile = KeptFile {
    name: "sessions.json",
    key: "sessions",
};
const JOURNAL: &str = "journal";
const DRAFTS: &str = "drafts";

/// The folder. All calls block on the disk.
#[derive(Debug, Clone)]
pub struct Home {
    /// Absent where the system does not say where such a folder goes.
    folder: Option<PathBuf>,
}

/// A file that holds one value, as the only member of an object.
struct KeptFile {
    name: &'static str,
    key: &'static str,
}

impl Home {
    /// Returns the home in this folder, which need not exist yet. Without a folder nothing is kept.
    #[must_use]
    pub const fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// Returns the names that sessions were given, as far as they can be read.
    #[must_use]
    pub fn names(&self) -> BTreeMap<SessionId, String> {
        self.read(&NAMES).unwrap_or_default()
    }

    /// Keeps the names that sessions were given.
    ///
    /// # Errors
    /// When they cannot be written; those of the last time are still there then.
    pub fn keep_names(&self, names: &BTreeMap<SessionId, String>) -> io::Result<()> {
        self.replace(&NAMES, names)
    }

    /// Returns the history of runs; an empty one when it cannot be read.
    #[must_use]
    pub fn history(&self) -> History {
        self.read(&HISTORY).unwrap_or_default()
    }

    /// Keeps the history of runs.
    ///
    /// # Errors
    /// When it cannot be written; that of the last time is still there then.
    pub fn keep_history(&self, history: &History) -> io::Result<()> {
        self.replace(&HISTORY, history)
    }

    /// Returns the engine that was chosen for new sessions and the others that have sessions.
    #[must_use]
    pub fn engines(&self) -> RememberedEngines {
        self.read(&ENGINES).unwrap_or_default()
    }

    /// Keeps the engine that was chosen for new sessions and the others that have sessions.
    ///
    /// # Errors
    /// When it cannot be written; what was kept last is still there then.
    pub fn keep_engines(&self, engines: &RememberedEngines) -> io::Result<()> {
        self.replace(&ENGINES, engines)
    }

    /// Returns the sessions that there were on the engines that answered last.
    #[must_use]
    pub fn sessions(&self) -> Vec<RememberedSession> {
        self.read(&SESSIONS).unwrap_or_default()
    }

    /// Keeps which sessions there are.
    ///
    /// # Errors
    /// When they cannot be written; those of the last time are still there then.
    pub fn keep_sessions(&self, sessions: &[RememberedSession]) -> io::Result<()> {
        self.replace(&SESSIONS, &sessions)
    }

    /// Opens the journal, and returns what the last process has left in it.
    #[must_use]
    pub fn open_journal(&self) -> (Journal, Vec<Record>) {
        match &self.folder {
            Some(folder) => Journal::open(&folder.join(JOURNAL)),
            None => (Journal::none(), Vec::new()),
        }
    }

    /// Returns the texts that were not saved.
    #[must_use]
    pub fn drafts(&self) -> Drafts {
        Drafts::new(self.folder.as_ref().map(|folder| folder.join(DRAFTS)))
    }

    fn read<T: DeserializeOwned>(&self, file: &KeptFile) -> Option<T> {
        let path = self.folder.as_ref()?.join(file.name);
        own_file::read(&path, MOST_BYTES, |bytes| file.understand(bytes)).flatten()
    }

    fn replace<T: Serialize>(&self, file: &KeptFile, value: &T) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let values = Map::from_iter([(file.key.to_owned(), serde_json::to_value(value)?)]);
        own_file::replace(&folder.join(file.name), &serde_json::to_vec(&values)?)
    }
}

impl KeptFile {
    /// Returns the value, if there is one, or what is wrong with the file.
    fn understand<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<Option<T>, String> {
        let values = serde_json::from_slice(bytes);
        let value = values.and_then(|mut values: Map<String, Value>| {
            let value = values.remove(self.key).map(serde_json::from_value);
            value.transpose()
        });
        value.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_last_and_a_failed_write_leaves_the_last_ones() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(Some(folder.path().join("data")));
        assert_eq!(home.names(), BTreeMap::new());
        let id = SessionId::random();
        let names = BTreeMap::from([(id, "api".to_owned())]);
        home.keep_names(&names).unwrap();
        assert_eq!(home.names(), names);

        // A file in the place of the folder stands for a disk that cannot be written.
        let elsewhere = Home::new(Some(folder.path().join("data/names.json")));
        elsewhere.keep_names(&BTreeMap::new()).unwrap_err();
        assert_eq!(home.names(), names);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_nothing_fails() {
        let home = Home::new(None);
        let names = BTreeMap::from([(SessionId::random(), "api".to_owned())]);
        home.keep_names(&names).unwrap();
        assert_eq!(home.names(), BTreeMap::new());
        assert_eq!(home.open_journal().1, []);
    }

    #[test]
    fn what_is_not_a_history_is_not_taken_for_one() {
        let history = serde_json::json!({ HISTORY.key: History::default() }).to_string();
        let understood = |bytes: &[u8]| HISTORY.understand::<History>(bytes);
        assert_eq!(understood(history.as_bytes()), Ok(Some(History::default())));
        assert_eq!(understood(b"{}"), Ok(None));
        for damaged in [
            history.get(..history.len() / 2).unwrap().as_bytes(),
            b"",
            &[0, 159, 146, 150],
            br#"{"history": 7}"#,
            br#"{"history": {"lines": [1, 2]}}"#,
        ] {
            let text = String::from_utf8_lossy(damaged);
            assert!(understood(damaged).is_err(), "{text:?}");
        }
    }
}
