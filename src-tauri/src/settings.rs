//! Settings and history, kept by `tauri-plugin-store`. Its files hold only what may be lost: one
//! that is missing or damaged means defaults, never a failure.

use cove_core::error::Error;
use cove_core::estimate::History;
use cove_core::sessions::KeepHistory;
use cove_core::settings::Settings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tauri::AppHandle;
use tauri_plugin_store::StoreExt;

const SETTINGS: (&str, &str) = ("settings.json", "settings");
const HISTORY: (&str, &str) = ("history.json", "history");

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

/// Returns what keeps history. It writes on a thread of its own: the caller must not wait for a disk.
pub(crate) fn keep_history(app: &AppHandle) -> KeepHistory {
    let app = app.clone();
    Box::new(move |history| {
        let (app, history) = (app.clone(), history.clone());
        tauri::async_runtime::spawn_blocking(move || {
            if let Err(error) = write(&app, HISTORY, &history) {
                log::warn!("failed to keep the history: {error}");
            }
        });
    })
}

fn read<T: DeserializeOwned>(app: &AppHandle, (file, key): (&str, &str)) -> Option<T> {
    let store = app
        .store(file)
        .map_err(|error| log::warn!("failed to read {file}: {error}"))
        .ok()?;
    serde_json::from_value(store.get(key)?)
        .map_err(|error| log::warn!("{file} is damaged and is not used: {error}"))
        .ok()
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
