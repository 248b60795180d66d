//! Files and folders of this machine that the user has chosen in the system's own dialogs or dropped on the window. The
//! window hears where they are and how many, and never names a path: it cannot make the app read or write what the user
//! has not pointed at.

use std::path::PathBuf;

use cove_core::error::Error;
use cove_core::sessions::Destination;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tauri::{AppHandle, DragDropEvent, Emitter, Manager, PhysicalPosition, Window, WindowEvent};
use tauri_plugin_dialog::{DialogExt, FileDialogBuilder, FilePath};
use uuid::Uuid;

/// What was dropped last, until it is uploaded.
#[derive(Debug, Default)]
pub(crate) struct Dropped(Mutex<Option<(String, Vec<PathBuf>)>>);

impl Dropped {
    fn keep(&self, paths: Vec<PathBuf>) -> String {
        let token = Uuid::new_v4().to_string();
        *self.0.lock() = Some((token.clone(), paths));
        token
    }

    /// Takes what was dropped, once.
    ///
    /// # Errors
    /// [`Error::Validation`] for what is no token of the last drop.
    pub(crate) fn take(&self, token: &str) -> Result<Vec<PathBuf>, Error> {
        let mut dropped = self.0.lock();
        match dropped.take() {
            Some((known, paths)) if known == token => Ok(paths),
            other => {
                *dropped = other;
                Err(Error::field("dropped", "must be dropped again"))
            }
        }
    }
}

/// Payload of `files:carried`: what is carried over the window from outside, in pixels of the page.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Carried {
    Over { x: f64, y: f64 },
    Dropped { x: f64, y: f64, token: String },
    Gone,
}

/// Tells the window what is carried over it and dropped on it.
pub(crate) fn on_window_event(window: &Window, event: &WindowEvent) {
    let WindowEvent::DragDrop(event) = event else {
        return;
    };
    // Windows alone counts the screen's pixels here.
    let scale = if cfg!(windows) {
        window.scale_factor().unwrap_or(1.0)
    } else {
        1.0
    };
    let place = |position: &PhysicalPosition<f64>| (position.x / scale, position.y / scale);
    let carried = match event {
        DragDropEvent::Enter { position, .. } | DragDropEvent::Over { position } => {
            let (x, y) = place(position);
            Carried::Over { x, y }
        }
        DragDropEvent::Drop { paths, position } if !paths.is_empty() => {
            let (x, y) = place(position);
            let token = window.state::<Dropped>().keep(paths.clone());
            Carried::Dropped { x, y, token }
        }
        _ => Carried::Gone,
    };
    if let Err(error) = window.emit("files:carried", carried) {
        log::warn!("what is carried over the window was not told: {error}");
    }
}

/// What an upload takes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    Files,
    Folder,
}

/// Lets the user choose what is uploaded; nothing when they think better of it.
///
/// # Errors
/// [`Error::Internal`] when there is no dialog.
pub(crate) async fn choose(app: &AppHandle, wanted: Wanted) -> Result<Vec<PathBuf>, Error> {
    ask(app, move |dialog| match wanted {
        Wanted::Files => dialog
            .set_title("Upload files")
            .blocking_pick_files()
            .unwrap_or_default(),
        Wanted::Folder => {
            Vec::from_iter(dialog.set_title("Upload a folder").blocking_pick_folder())
        }
    })
    .await
}

/// Lets the user choose where what is downloaded goes: a file of this name, or without one a folder. `None` when they think
/// better of it.
///
/// # Errors
/// [`Error::Internal`] when there is no dialog.
pub(crate) async fn place_for(
    app: &AppHandle,
    name: Option<String>,
) -> Result<Option<Destination>, Error> {
    let is_file = name.is_some();
    let name = name.map(|name| file_name(&name));
    let chosen = ask(app, move |dialog| {
        let dialog = dialog.set_title("Download");
        Vec::from_iter(match name {
            Some(name) => dialog.set_file_name(name).blocking_save_file(),
            None => dialog.blocking_pick_folder(),
        })
    });
    Ok(chosen.await?.pop().map(if is_file {
        Destination::File
    } else {
        Destination::Folder
    }))
}

/// Makes the name of a file in a container one that dialogs take.
fn file_name(name: &str) -> String {
    let taken = |c: char| !c.is_control() && !"<>:\"/\\|?*".contains(c);
    let safe = name.chars().map(|c| if taken(c) { c } else { '-' });
    safe.collect()
}

async fn ask(
    app: &AppHandle,
    ask: impl FnOnce(FileDialogBuilder<tauri::Wry>) -> Vec<FilePath> + Send + 'static,
) -> Result<Vec<PathBuf>, Error> {
    #[cfg(debug_assertions)]
    if let Some(answer) = answer_of_a_test() {
        return Ok(answer);
    }
    let dialog = app.dialog().file();
    let chosen = tauri::async_runtime::spawn_blocking(move || ask(dialog)).await;
    let chosen =
        chosen.map_err(|error| Error::Internal(format!("failed to show a dialog: {error}")))?;
    let paths = chosen.into_iter().filter_map(|path| path.into_path().ok());
    Ok(paths.collect())
}

/// Returns what is chosen instead of by a dialog, for which a test has no hands: the lines of the file that this variable
/// names. A release does not look.
#[cfg(debug_assertions)]
fn answer_of_a_test() -> Option<Vec<PathBuf>> {
    let lines = std::fs::read_to_string(std::env::var_os("COVE_TEST_CHOSEN")?).ok()?;
    Some(lines.lines().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_the_dialog_is_one_that_it_takes() {
        assert_eq!(file_name("notes (2).txt"), "notes (2).txt");
        assert_eq!(file_name("../a:b\n"), "..-a-b-");
    }

    #[test]
    fn what_was_dropped_is_taken_once_and_only_by_its_token() {
        let dropped = Dropped::default();
        dropped.take("").unwrap_err();
        let old = dropped.keep(vec![PathBuf::from("old")]);
        let new = dropped.keep(vec![PathBuf::from("new")]);
        dropped.take(&old).unwrap_err();
        dropped.take("/etc/passwd").unwrap_err();
        assert_eq!(dropped.take(&new).unwrap(), [PathBuf::from("new")]);
        dropped.take(&new).unwrap_err();
    }
}
