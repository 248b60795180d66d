//! Drafts: text of a session's files that its user has not saved. They lie in the app's own folder, one file each, so
//! that they outlive the window, the app and the machine's power, and go when they are dropped or their session is deleted.
//!
//! A draft is never written into the session's file by itself: what is to become of it is the user's to say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::files::WrittenCharset;
use crate::own_file;
use crate::session::SessionId;

/// Bytes of one draft on the disk; a file that can be edited has at most an eighth of that when it is read.
const MOST_BYTES: u64 = 16_000_000;
/// Bytes of all drafts.
const MOST_BYTES_OF_ALL: u64 = 128_000_000;
/// Drafts of all sessions.
const MOST_DRAFTS: usize = 500;
const ENDING: &str = ".json";

/// The unsaved text of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Draft {
    /// The path of the file; opaque.
    pub path: String,
    /// The name of the file for display.
    pub name: String,
    /// The whole text, with the line breaks that the file is to have.
    pub content: String,
    /// The encoding that the file is to have; `null` for plain UTF-8.
    pub charset: Option<WrittenCharset>,
    /// The revision of the file that was edited; `null` when there was none any more.
    pub revision: Option<String>,
}

/// The drafts of all sessions. All calls block on the disk.
#[derive(Debug, Default)]
pub struct Drafts {
    /// Absent where nothing can be kept.
    folder: Option<PathBuf>,
    /// What there is, oldest first; read from the disk when it is first asked for.
    kept: Mutex<Option<Vec<Kept>>>,
}

/// A draft on the disk.
#[derive(Debug)]
struct Kept {
    session: SessionId,
    path: String,
    file: PathBuf,
    bytes: u64,
}

/// What a file of a draft holds; `T` is the draft, or a reference to it.
#[derive(Debug, Serialize, Deserialize)]
struct Record<T> {
    session: SessionId,
    draft: T,
}

impl Drafts {
    /// Returns the drafts in this folder, which need not exist yet.
    #[must_use]
    pub const fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            kept: Mutex::new(None),
        }
    }

    /// Keeps a draft in place of the last one of its file. It is on the disk when this returns. Where there is no room,
    /// the oldest drafts of sessions that are not known give way.
    ///
    /// # Errors
    /// [`Error::DraftNotKept`]; the last draft is still there then.
    pub(crate) fn keep(
        &self,
        session: SessionId,
        draft: &Draft,
        is_known: impl Fn(SessionId) -> bool,
    ) -> Result<(), Error> {
        let not_kept = |problem: String| Error::DraftNotKept {
            path: draft.path.clone(),
            message: problem,
        };
        let Some(folder) = &self.folder else {
            return Err(not_kept("Cove has no folder of its own".to_owned()));
        };
        let bytes = serde_json::to_vec(&Record { session, draft })
            .map_err(|error| not_kept(error.to_string()))?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > MOST_BYTES {
            return Err(not_kept("it is too large".to_owned()));
        }
        self.with(|kept| {
            let last = kept.iter().position(|one| one.is_of(session, &draft.path));
            let file = match last.and_then(|last| kept.get(last)) {
                Some(last) => last.file.clone(),
                None => folder.join(format!("{}{ENDING}", Uuid::new_v4())),
            };
            while !has_room(kept, session, &draft.path, size) {
                let Some(oldest) = kept.iter().position(|one| !is_known(one.session)) else {
                    return Err(not_kept("there are too many others".to_owned()));
                };
                let oldest = kept.remove(oldest);
                log::warn!("the draft of a session that is not known gave way to another");
                remove(&oldest.file).map_err(|error| not_kept(error.to_string()))?;
            }
            own_file::replace(&file, &bytes).map_err(|error| not_kept(error.to_string()))?;
            kept.retain(|one| !one.is_of(session, &draft.path));
            kept.push(Kept {
                session,
                path: draft.path.clone(),
                file,
                bytes: size,
            });
            Ok(())
        })
    }

    /// Returns the drafts of a session that can be read, the oldest first.
    pub(crate) fn of(&self, session: SessionId) -> Vec<Draft> {
        self.with(|kept| {
            let own = kept.iter().filter(|one| one.session == session);
            own.filter_map(|one| read(&one.file))
                .map(|record| record.draft)
                .collect()
        })
    }

    /// Drops the draft of a file, if there is one.
    ///
    /// # Errors
    /// [`Error::DraftNotKept`] when it cannot be removed.
    pub(crate) fn drop_one(&self, session: SessionId, path: &str) -> Result<(), Error> {
        self.remove_all(|one| one.is_of(session, path))
            .map_err(|error| Error::DraftNotKept {
                path: path.to_owned(),
                message: error.to_string(),
            })
    }

    /// Drops all drafts of a session that is no more.
    pub(crate) fn forget(&self, session: SessionId) {
        if let Err(error) = self.remove_all(|one| one.session == session) {
            log::warn!("failed to remove the drafts of session {session}: {error}");
        }
    }

    /// Removes the drafts that fit; those that cannot be removed are still known.
    fn remove_all(&self, fits: impl Fn(&Kept) -> bool) -> io::Result<()> {
        self.with(|kept| {
            let mut outcome = Ok(());
            kept.retain(|one| {
                if !fits(one) {
                    return true;
                }
                match remove(&one.file) {
                    Ok(()) => false,
                    Err(error) => {
                        outcome = Err(error);
                        true
                    }
                }
            });
            outcome
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Kept>) -> T) -> T {
        let mut kept = self.kept.lock();
        let folder = self.folder.as_deref();
        work(kept.get_or_insert_with(|| folder.map(find).unwrap_or_default()))
    }
}

impl Kept {
    fn is_of(&self, session: SessionId, path: &str) -> bool {
        self.session == session && self.path == path
    }
}

/// Returns whether a draft of this size has room beside the others.
fn has_room(kept: &[Kept], session: SessionId, path: &str, size: u64) -> bool {
    let others = kept.iter().filter(|one| !one.is_of(session, path));
    let (count, bytes) = others.fold((0, 0), |(count, bytes): (usize, u64), one| {
        (count + 1, bytes.saturating_add(one.bytes))
    });
    count < MOST_DRAFTS && bytes.saturating_add(size) <= MOST_BYTES_OF_ALL
}

/// Returns what drafts there are in a folder, oldest first. Of two for one file the newer one counts.
fn find(folder: &Path) -> Vec<Kept> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("failed to read the drafts: {error}");
            }
            return Vec::new();
        }
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ENDING))
        .map(|path| {
            let changed = fs::symlink_metadata(&path).and_then(|facts| facts.modified());
            (changed.unwrap_or(SystemTime::UNIX_EPOCH), path)
        })
        .collect();
    files.sort();
    let mut found: BTreeMap<(SessionId, String), Kept> = BTreeMap::new();
    let mut order = Vec::new();
    for (_, file) in files {
        let Some(Record { session, draft }) = read(&file) else {
            continue;
        };
        let bytes = fs::metadata(&file).map_or(0, |facts| facts.len());
        let key = (session, draft.path.clone());
        order.retain(|known| *known != key);
        order.push(key.clone());
        let kept = Kept {
            session,
            path: draft.path,
            file,
            bytes,
        };
        if let Some(older) = found.insert(key, kept)
            && let Err(error) = remove(&older.file)
        {
            log::warn!("failed to remove an older draft: {error}");
        }
    }
    order.iter().filter_map(|key| found.remove(key)).collect()
}

fn read(file: &Path) -> Option<Record<Draft>> {
    own_file::read(file, MOST_BYTES, |bytes| {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    })
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => {
            if let Some(folder) = file.parent() {
                own_file::sync_folder(folder);
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(path: &str, content: &str) -> Draft {
        Draft {
            path: path.to_owned(),
            name: path.to_owned(),
            content: content.to_owned(),
            charset: Some(WrittenCharset {
                name: "UTF-16LE".to_owned(),
                marked: true,
            }),
            revision: Some("1".to_owned()),
        }
    }

    fn known(_: SessionId) -> bool {
        true
    }

    #[test]
    fn drafts_outlive_the_app_until_they_are_dropped_or_their_session_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("drafts");
        let anew = || Drafts::new(Some(folder.clone()));
        let (one, two) = (SessionId::random(), SessionId::random());
        let drafts = anew();
        assert_eq!(drafts.of(one), []);
        for (session, path, content) in [
            (one, "/workspace/a", "first"),
            (one, "/workspace/b", "b"),
            (two, "/workspace/a", "other"),
            (one, "/workspace/a", "\u{feff}second\r\n\0"),
        ] {
            drafts.keep(session, &draft(path, content), known).unwrap();
        }
        let expected = [
            draft("/workspace/b", "b"),
            draft("/workspace/a", "\u{feff}second\r\n\0"),
        ];
        assert_eq!(drafts.of(one), expected);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);

        let mut again = anew().of(one);
        again.sort_by(|a, b| b.path.cmp(&a.path));
        assert_eq!(again, expected);
        anew().drop_one(one, "/workspace/b").unwrap();
        anew().drop_one(one, "/workspace/none").unwrap();
        assert_eq!(anew().of(one).len(), 1);
        anew().forget(one);
        assert_eq!(anew().of(one), []);
        assert_eq!(anew().of(two), [draft("/workspace/a", "other")]);
    }

    #[test]
    fn a_damaged_draft_is_set_aside_and_hides_no_other() {
        let home = tempfile::tempdir().unwrap();
        let anew = || Drafts::new(Some(home.path().to_owned()));
        let id = SessionId::random();
        anew().keep(id, &draft("/workspace/a", "a"), known).unwrap();
        fs::write(home.path().join("x.json"), b"{\"session\":").unwrap();
        assert_eq!(anew().of(id), [draft("/workspace/a", "a")]);
        assert!(home.path().join("x.json.damaged").exists());
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_was_kept_stays() {
        let home = tempfile::tempdir().unwrap();
        let drafts = Drafts::new(Some(home.path().to_owned()));
        let id = SessionId::random();
        drafts.keep(id, &draft("/workspace/a", "a"), known).unwrap();
        let size = usize::try_from(MOST_BYTES).unwrap();
        let large = draft("/workspace/a", &"x".repeat(size));
        let refused = drafts.keep(id, &large, known);
        assert!(matches!(refused, Err(Error::DraftNotKept { .. })));
        assert_eq!(drafts.of(id), [draft("/workspace/a", "a")]);
        Drafts::new(None)
            .keep(id, &draft("/workspace/a", "a"), known)
            .unwrap_err();
    }

    #[test]
    fn where_there_are_too_many_those_of_unknown_sessions_give_way() {
        let home = tempfile::tempdir().unwrap();
        let drafts = Drafts::new(Some(home.path().to_owned()));
        let (gone, here) = (SessionId::random(), SessionId::random());
        let is_known = |id| id == here;
        drafts
            .keep(gone, &draft("/workspace/a", "a"), is_known)
            .unwrap();
        for number in 0..MOST_DRAFTS {
            let path = format!("/workspace/{number}");
            drafts.keep(here, &draft(&path, ""), is_known).unwrap();
        }
        assert_eq!(drafts.of(gone), []);
        drafts
            .keep(here, &draft("/workspace/one more", ""), is_known)
            .unwrap_err();
        drafts
            .keep(here, &draft("/workspace/0", "again"), is_known)
            .unwrap();
        assert_eq!(drafts.of(here).len(), MOST_DRAFTS);
    }
}
