//! Archives that the user has chosen in the system's own dialogs. The window gets a token for each and
//! never a path: it cannot make the app read or write a file that the user has not pointed at.

use std::collections::HashMap;
use std::path::PathBuf;

use cove_core::error::Error;
use cove_core::session::{ChosenArchive, Source};
use parking_lot::Mutex;
use serde_json::Value;
use tauri::AppHandle;
use tauri_plugin_dialog::DialogExt;

/// How archives end that can be read.
const TAR_ENDINGS: [&str; 10] = [
    "tar", "gz", "tgz", "xz", "txz", "bz2", "tbz2", "tbz", "zst", "tzst",
];

/// What the user has chosen so far, by token.
#[derive(Debug, Default)]
pub(crate) struct Archives(Mutex<HashMap<String, PathBuf>>);

impl Archives {
    /// Lets the user choose an archive; `None` when they think better of it.
    ///
    /// # Errors
    /// [`Error::Validation`] when what was chosen cannot be read.
    pub(crate) async fn choose(&self, app: &AppHandle) -> Result<Option<ChosenArchive>, Error> {
        let dialog = app
            .dialog()
            .file()
            .set_title("Start with files of an archive")
            .add_filter("Tar archives", &TAR_ENDINGS);
        let chosen = tauri::async_runtime::spawn_blocking(move || dialog.blocking_pick_file());
        let chosen = chosen
            .await
            .map_err(|error| Error::Internal(format!("failed to show a dialog: {error}")))?;
        let Some(path) = chosen.and_then(|chosen| chosen.into_path().ok()) else {
            return Ok(None);
        };
        let unreadable = |error| Error::field("archive", format!("cannot be read: {error}"));
        let facts = std::fs::metadata(&path).map_err(unreadable)?;
        if !facts.is_file() {
            return Err(Error::field("archive", "is not a file"));
        }
        let size_bytes = facts.len();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let mut chosen = self.0.lock();
        let token = format!("archive-{}", chosen.len());
        chosen.insert(token.clone(), path);
        Ok(Some(ChosenArchive {
            token,
            name,
            size_bytes,
        }))
    }

    /// Takes the token of an archive out of a request for a session, and returns what it stands for.
    ///
    /// # Errors
    /// [`Error::Validation`] for what is no token.
    pub(crate) fn source(&self, request: &mut Value) -> Result<Option<Source>, Error> {
        let token = match request
            .as_object_mut()
            .and_then(|fields| fields.remove("archive"))
        {
            None | Some(Value::Null) => return Ok(None),
            Some(token) => token,
        };
        let chosen = self.0.lock();
        let path = token.as_str().and_then(|token| chosen.get(token)).cloned();
        path.map(|path| Some(Source::Archive { path }))
            .ok_or_else(|| Error::field("archive", "must be chosen again"))
    }
}

/// Lets the user choose where an archive goes; `None` when they think better of it.
///
/// # Errors
/// [`Error::Internal`] when there is no dialog.
pub(crate) async fn place_for(app: &AppHandle, name: &str) -> Result<Option<PathBuf>, Error> {
    let dialog = app
        .dialog()
        .file()
        .set_title("Export files")
        .set_file_name(file_name(name))
        .add_filter("Tar archives", &["tar"]);
    let chosen = tauri::async_runtime::spawn_blocking(move || dialog.blocking_save_file());
    let chosen = chosen
        .await
        .map_err(|error| Error::Internal(format!("failed to show a dialog: {error}")))?;
    Ok(chosen.and_then(|chosen| chosen.into_path().ok()))
}

/// Makes a session's name one that every file system takes.
fn file_name(name: &str) -> String {
    let safe = name.chars().map(|c| {
        if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    });
    format!("{}.tar", safe.collect::<String>().trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_user_has_chosen_can_be_imported() {
        let archives = Archives::default();
        let path = PathBuf::from("files.tar");
        archives
            .0
            .lock()
            .insert("archive-0".to_owned(), path.clone());
        let mut request = json!({ "workspace_id": "shop", "archive": "archive-0" });
        assert_eq!(
            archives.source(&mut request).unwrap(),
            Some(Source::Archive { path })
        );
        assert_eq!(request, json!({ "workspace_id": "shop" }));
        for absent in [json!({}), json!({ "archive": null }), json!(7)] {
            assert_eq!(archives.source(&mut absent.clone()).unwrap(), None);
        }
        for wrong in [json!("/etc/passwd"), json!(7), json!("archive-1")] {
            archives
                .source(&mut json!({ "archive": wrong }))
                .unwrap_err();
        }
    }

    #[test]
    fn an_archive_is_named_after_its_session() {
        assert_eq!(file_name("api server"), "api server.tar");
        assert_eq!(file_name("../etc/x:y"), "-etc-x-y.tar");
    }
}
