//! What is kept between runs: settings by `tauri-plugin-store`, which holds only what may be lost; names,
//! history, the choice of an engine, which sessions there are and the journal in the app's own folder ([`Home`]). What is missing or damaged means defaults,
//! and a damaged file is set aside.

use std::io;
use std::sync::Arc;

use cove_core::engine::RememberedEngines;
use cove_core::error::Error;
use cove_core::estimate::History;
use cove_core::home::Home;
use cove_core::own_file;
use cove_core::remembered::RememberedSession;
use cove_core::sessions::{Names, Persistence};
use cove_core::settings::Settings;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tauri::{AppHandle, Manager};
use tauri_plugin_store::{StoreExt, resolve_store_path};

const FILE: &str = "settings.json";
const KEY: &str = "settings";

/// Bytes that the file comes nowhere near; what is larger is somebody else's or damaged.
const MOST_BYTES: u64 = 1_000_000;

/// Returns the settings, or the defaults. The plugin would take a damaged file for an empty one, and
/// overwrite it with the next save.
pub(crate) fn load(app: &AppHandle) -> Settings {
    let path = match resolve_store_path(app, FILE) {
        Ok(path) => path,
        Err(error) => {
            log::warn!("failed to find the place of the settings: {error}");
            return Settings::default();
        }
    };
    own_file::read(&path, MOST_BYTES, understand)
        .flatten()
        .and_then(|settings| settings.check().ok())
        .unwrap_or_default()
}

/// Keeps the settings.
///
/// # Errors
/// [`Error::SettingsNotSaved`].
pub(crate) fn save(app: &AppHandle, settings: Settings) -> Result<(), Error> {
    write(app, settings).map_err(|error| Error::SettingsNotSaved(error.to_string()))
}

/// Returns the app's own folder.
pub(crate) fn home(app: &AppHandle) -> Home {
    let folder = app
        .path()
        .app_data_dir()
        .inspect_err(|error| log::warn!("failed to find the app's own folder: {error}"));
    Home::new(folder.ok())
}

/// Keeps history, names, the choice of an engine and which sessions there are in their files, on a thread of its own: the caller must not wait for a disk.
#[derive(Clone)]
pub(crate) struct Keeper {
    history: Newest<History>,
    names: Newest<Names>,
    engines: Newest<RememberedEngines>,
    sessions: Newest<Vec<RememberedSession>>,
}

impl Keeper {
    pub(crate) fn new(home: &Home) -> Self {
        Self {
            history: Newest::new(home, Home::keep_history),
            names: Newest::new(home, Home::keep_names),
            engines: Newest::new(home, Home::keep_engines),
            sessions: Newest::new(home, |home, sessions| home.keep_sessions(sessions)),
        }
    }

    /// Waits until everything is on the disk that was to be kept. Blocks.
    pub(crate) fn finish(&self) {
        self.history.write();
        self.names.write();
        self.engines.write();
        self.sessions.write();
    }
}

impl Persistence for Keeper {
    fn history(&self, history: &History) {
        self.history.keep(history.clone());
    }

    fn names(&self, names: &Names) {
        self.names.keep(names.clone());
    }

    fn engines(&self, engines: &RememberedEngines) {
        self.engines.keep(engines.clone());
    }

    fn sessions(&self, sessions: &[RememberedSession]) {
        self.sessions.keep(sessions.to_vec());
    }
}

/// The newest value of a file. Whichever thread writes last, it writes the newest.
struct Newest<T> {
    home: Home,
    write: fn(&Home, &T) -> io::Result<()>,
    value: Arc<Mutex<Option<T>>>,
    /// Held while the file is written.
    writing: Arc<Mutex<()>>,
}

impl<T> Clone for Newest<T> {
    fn clone(&self) -> Self {
        Self {
            home: self.home.clone(),
            write: self.write,
            value: Arc::clone(&self.value),
            writing: Arc::clone(&self.writing),
        }
    }
}

impl<T: Send + 'static> Newest<T> {
    fn new(home: &Home, write: fn(&Home, &T) -> io::Result<()>) -> Self {
        Self {
            home: home.clone(),
            write,
            value: Arc::default(),
            writing: Arc::default(),
        }
    }

    fn keep(&self, value: T) {
        *self.value.lock() = Some(value);
        let newest = self.clone();
        tauri::async_runtime::spawn_blocking(move || newest.write());
    }

    /// Writes the newest value, unless that has happened.
    fn write(&self) {
        let _writing = self.writing.lock();
        let value = self.value.lock().take();
        if let Some(value) = value
            && let Err(error) = (self.write)(&self.home, &value)
        {
            log::warn!("failed to write into the app's own folder: {error}");
        }
    }
}

/// Returns the settings, if there are any, or what is wrong with the file.
fn understand(bytes: &[u8]) -> Result<Option<Settings>, String> {
    let values = serde_json::from_slice(bytes);
    let value = values.and_then(|mut values: Map<String, Value>| {
        let value = values.remove(KEY).map(serde_json::from_value);
        value.transpose()
    });
    value.map_err(|error| error.to_string())
}

fn write(app: &AppHandle, settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let store = app.store(FILE)?;
    store.set(KEY, serde_json::to_value(settings)?);
    store.save()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_last_is_on_the_disk_when_the_app_ends() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(Some(folder.path().to_owned()));
        let keeper = Keeper::new(&home);
        let id = cove_core::session::SessionId::random();
        for name in ["one", "two", "three"] {
            keeper.names(&Names::from([(id, name.to_owned())]));
        }
        keeper.finish();
        assert_eq!(home.names(), Names::from([(id, "three".to_owned())]));
    }
}
