//! Settings, history and names, kept by `tauri-plugin-store`. Its files hold only what may be lost: one
//! that is missing means defaults, and so does one that is damaged, which is set aside.

use std::sync::Arc;

use cove_core::error::Error;
use cove_core::estimate::History;
use cove_core::journal::{Journal, Record};
use cove_core::own_file;
use cove_core::sessions::{Keep, Names};
use cove_core::settings::Settings;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tauri::{AppHandle, Manager};
use tauri_plugin_store::{StoreExt, resolve_store_path};

const SETTINGS: (&str, &str) = ("settings.json", "settings");
const HISTORY: (&str, &str) = ("history.json", "history");
const NAMES: (&str, &str) = ("names.json", "names");

/// Bytes that none of our files comes near; what is larger is somebody else's or damaged.
const MOST_BYTES: u64 = 4_000_000;

/// Returns the settings, or the defaults.
pub(crate) fn load(app: &AppHandle) -> Settings {
    read::<Settings>(app, SETTINGS)
        .and_then(|settings| settings.check().ok())
        .unwrap_or_default()
}

/// Keeps the settings.
///
/// # Errors
/// [`Error::Internal`] when they cannot be written.
pub(crate) fn save(app: &AppHandle, settings: Settings) -> Result<(), Error> {
    write(app, SETTINGS, &settings)
        .map_err(|error| Error::Internal(format!("failed to save the settings: {error}")))
}

/// Returns what earlier runs took, or nothing.
pub(crate) fn load_history(app: &AppHandle) -> History {
    read(app, HISTORY).unwrap_or_default()
}

/// Returns the names that sessions were given.
pub(crate) fn load_names(app: &AppHandle) -> Names {
    read(app, NAMES).unwrap_or_default()
}

/// Opens the journal in the app's own folder.
pub(crate) fn open_journal(app: &AppHandle) -> (Journal, Vec<Record>) {
    match app.path().app_data_dir() {
        Ok(folder) => Journal::open(&folder.join("journal")),
        Err(error) => {
            log::warn!("failed to find the place of the journal: {error}");
            (Journal::none(), Vec::new())
        }
    }
}

/// Keeps history and names in their files, on a thread of its own: the caller must not wait for a disk.
pub(crate) struct Keeper {
    history: Newest<History>,
    names: Newest<Names>,
}

impl Keeper {
    pub(crate) fn new(app: &AppHandle) -> Self {
        Self {
            history: Newest::new(app, HISTORY),
            names: Newest::new(app, NAMES),
        }
    }
}

impl Keep for Keeper {
    fn history(&self, history: &History) {
        self.history.keep(history.clone());
    }

    fn names(&self, names: &Names) {
        self.names.keep(names.clone());
    }
}

/// The newest value of a file. Whichever thread writes last, it writes the newest.
struct Newest<T> {
    app: AppHandle,
    place: (&'static str, &'static str),
    value: Arc<Mutex<Option<T>>>,
    turn: Arc<Mutex<()>>,
}

impl<T: Serialize + Send + 'static> Newest<T> {
    fn new(app: &AppHandle, place: (&'static str, &'static str)) -> Self {
        Self {
            app: app.clone(),
            place,
            value: Arc::default(),
            turn: Arc::default(),
        }
    }

    fn keep(&self, value: T) {
        *self.value.lock() = Some(value);
        let (app, place) = (self.app.clone(), self.place);
        let (newest, turn) = (Arc::clone(&self.value), Arc::clone(&self.turn));
        tauri::async_runtime::spawn_blocking(move || {
            let _turn = turn.lock();
            let value = newest.lock().take();
            if let Some(value) = value
                && let Err(error) = write(&app, place, &value)
            {
                log::warn!("failed to keep {}: {error}", place.0);
            }
        });
    }
}

/// Reads a value from its file, where a save has left it; one that is damaged is set aside. The plugin
/// would take a damaged file for an empty one, and overwrite it with the next save.
fn read<T: DeserializeOwned>(app: &AppHandle, (file, key): (&str, &str)) -> Option<T> {
    let path = resolve_store_path(app, file)
        .map_err(|error| log::warn!("failed to find the place of {file}: {error}"))
        .ok()?;
    own_file::read(&path, MOST_BYTES, |bytes| understand(bytes, key)).flatten()
}

/// Returns the value, if there is one, or what is wrong with the file.
fn understand<T: DeserializeOwned>(bytes: &[u8], key: &str) -> Result<Option<T>, String> {
    let values = serde_json::from_slice(bytes);
    let value = values.and_then(|mut values: Map<String, Value>| {
        let value = values.remove(key).map(serde_json::from_value);
        value.transpose()
    });
    value.map_err(|error| error.to_string())
}

fn write<T: Serialize>(
    app: &AppHandle,
    (file, key): (&str, &str),
    value: &T,
) -> Result<(), Box<dyn std::error::Error>> {
    let store = app.store(file)?;
    store.set(key, serde_json::to_value(value)?);
    store.save()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_history_is_not_taken_for_one() {
        let history = serde_json::json!({ HISTORY.1: History::default() }).to_string();
        let understood = |bytes: &[u8]| understand::<History>(bytes, HISTORY.1);
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
