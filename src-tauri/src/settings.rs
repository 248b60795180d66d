//! Settings, history and names, kept by `tauri-plugin-store`. Its files hold only what may be lost: one
//! that is missing means defaults, and so does one that is damaged, which is set aside.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cove_core::error::Error;
use cove_core::estimate::History;
use cove_core::journal::{Journal, Record};
use cove_core::sessions::{Keep, Names};
use cove_core::settings::Settings;
use serde::Serialize;
use serde::de::DeserializeOwned;
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
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        let (app, place) = (self.app.clone(), self.place);
        let (newest, turn) = (Arc::clone(&self.value), Arc::clone(&self.turn));
        tauri::async_runtime::spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let value = newest.lock().unwrap_or_else(PoisonError::into_inner).take();
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
    read_or_set_aside(&path, key)
}

/// Renames a file that does not hold what it should, so that the next save does not overwrite it.
fn read_or_set_aside<T: DeserializeOwned>(path: &Path, key: &str) -> Option<T> {
    let problem = match read_file(path, key) {
        Ok(value) => return value,
        Err(problem) => problem,
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let outcome = match fs::rename(path, &aside) {
        Ok(()) => "was set aside".to_owned(),
        Err(error) => format!("could not be set aside: {error}"),
    };
    log::warn!("{} is damaged ({problem}) and {outcome}", path.display());
    None
}

/// Returns what a file holds, or what is wrong with it. One that is not there holds nothing.
fn read_file<T: DeserializeOwned>(path: &Path, key: &str) -> Result<Option<T>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(said(&error)),
    };
    if size > MOST_BYTES {
        return Err(format!("{size} bytes are too many"));
    }
    let bytes = fs::read(path).map_err(|error| said(&error))?;
    let mut values: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|error| said(&error))?;
    let value = values.remove(key).map(serde_json::from_value);
    value.transpose().map_err(|error| said(&error))
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

    /// Whether a file with these bytes stays where it is.
    fn stays(bytes: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HISTORY.0);
        fs::write(&path, bytes).unwrap();
        let read = read_or_set_aside::<History>(&path, HISTORY.1);
        let aside = folder.path().join("history.json.damaged");
        if !path.exists() {
            assert_eq!(fs::read(aside).unwrap(), bytes, "what was there is kept");
            assert_eq!(read, None);
            return false;
        }
        assert!(!aside.exists());
        true
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_not_lost() {
        let history = serde_json::json!({ HISTORY.1: History::default() }).to_string();
        assert!(stays(history.as_bytes()));
        assert!(stays(b"{}"));
        let huge = vec![b' '; 4_000_001];
        for damaged in [
            history.get(..history.len() / 2).unwrap().as_bytes(),
            b"",
            &[0, 159, 146, 150],
            br#"{"history": 7}"#,
            br#"{"history": {"lines": [1, 2]}}"#,
            &huge,
        ] {
            let start = damaged.get(..damaged.len().min(40)).unwrap();
            assert!(!stays(damaged), "{:?}", String::from_utf8_lossy(start));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            read_file::<History>(&folder.path().join("none"), "history"),
            Ok(None)
        );
    }
}
