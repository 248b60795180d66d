//! The journal: what runs are about to do on the engine, written down before it happens, so that a
//! process that is killed at any instant leaves a record of what may have to be undone.
//!
//! One file a session, replaced as a whole.
//! It says nothing about sessions that no run is changing: that is what labels on the engine are for.
//! How effects are undone is `provision/unwind.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine_id::EngineIdentity;
use crate::labels;
use crate::own_file;
use crate::session::{CreateSession, SessionId, Source};

/// Records of a version that is not known are set aside: an undo that is misunderstood could remove too much.
/// Those of the first version do not say which engine they are about.
const VERSION: u32 = 2;
const FIRST_VERSION: u32 = 1;
/// Bytes that no record comes near; what is larger is somebody else's or damaged.
const MOST_BYTES: u64 = 1_000_000;
const LOCK: &str = "lock";
const ENDING: &str = ".json";

/// What takes an effect back. All are idempotent: what is gone already is a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case")]
pub(crate) enum Undo {
    RemoveContainer {
        name: String,
        /// The id of the container that had the name before, and gets it back: it is not the one to remove.
        spare: Option<String>,
    },
    RemoveVolume {
        name: String,
        /// Whether the engine was cut off while it made the volume. One that dies then leaves a volume
        /// without labels; nothing had that name before, and nobody else would choose it.
        may_lack_labels: bool,
    },
    /// Removes a network of Cove's, unless a container uses it: all sessions may share one.
    RemoveNetwork { name: String },
    /// Stops a container that was started. It is known by its id, whatever its name is meanwhile.
    StopContainer { name: String, id: String },
    /// Starts a container that was stopped; known by its id as well.
    StartContainer { name: String, id: String },
    /// Pauses a container that was let go on; known by its id as well.
    PauseContainer { name: String, id: String },
    /// Gives a container that was set aside its name back.
    RestoreContainer { name: String, aside: String },
}

/// What is known of a run, or of what a run has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The engine that it is about; absent when the version of Cove that wrote it did not say, and nothing
    /// of the session was found since.
    #[serde(default)]
    pub(crate) engine: Option<EngineIdentity>,
    /// The session, as its labels would say it.
    labels: BTreeMap<String, String>,
    /// Where the files of a new session come from.
    pub(crate) source: Option<Source>,
    /// What takes back the effects that may have happened, oldest first.
    pub(crate) undos: Vec<Undo>,
    /// Whether the run has ended, and only undos are left.
    pub(crate) ended: bool,
}

/// The journal of this process. Only one process at a time has it.
#[derive(Debug)]
pub struct Journal {
    /// Absent when nothing can be written down; then labels alone tell what was left.
    folder: Option<PathBuf>,
    _lock: Option<File>,
}

impl Journal {
    /// Opens the journal in a folder, which is made if need be, and returns what the last process left.
    /// Damaged records are set aside. Where the folder cannot be used, or another process uses it,
    /// nothing is written down and the log says why. Blocks on the disk.
    #[must_use]
    pub fn open(folder: &Path) -> (Self, Vec<Record>) {
        match lock(folder) {
            Ok(lock) => {
                let journal = Self {
                    folder: Some(folder.to_owned()),
                    _lock: Some(lock),
                };
                (journal, read_all(folder))
            }
            Err(error) => {
                log::warn!("there will be no journal in {}: {error}", folder.display());
                (Self::none(), Vec::new())
            }
        }
    }

    /// Returns a journal that writes nothing down.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            folder: None,
            _lock: None,
        }
    }

    /// Writes a record down, in place of the session's last one. It is on the disk when this returns.
    /// One that cannot be written is logged: the effect goes on, and labels tell of it.
    pub(crate) async fn write(self: &Arc<Self>, id: SessionId, record: Record) {
        self.on_disk(id, move |path, _| replace(path, &record))
            .await;
    }

    /// Forgets the session's record, if there is one.
    pub(crate) async fn forget(self: &Arc<Self>, id: SessionId) {
        self.on_disk(id, |path, folder| {
            match fs::remove_file(path) {
                Ok(()) => own_file::sync_folder(folder),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })
        .await;
    }

    async fn on_disk(
        self: &Arc<Self>,
        id: SessionId,
        work: impl FnOnce(&Path, &Path) -> io::Result<()> + Send + 'static,
    ) {
        if self.folder.is_none() {
            return;
        }
        let journal = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || match &journal.folder {
            Some(folder) => work(&folder.join(format!("{id}{ENDING}")), folder),
            None => Ok(()),
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("failed to keep the journal of session {id}: {error}"),
            Err(error) => log::warn!("failed to keep the journal of session {id}: {error}"),
        }
    }
}

impl Record {
    pub(crate) fn new(
        engine: Option<EngineIdentity>,
        id: SessionId,
        request: &CreateSession,
        created: &str,
        source: Option<Source>,
    ) -> Self {
        Self {
            version: VERSION,
            engine,
            labels: labels::of(id, request, created).into_iter().collect(),
            source,
            undos: Vec::new(),
            ended: false,
        }
    }

    /// Returns the record of a run that has ended, with what is left to be taken back.
    pub(crate) fn ended(self, undos: Vec<Undo>) -> Self {
        Self {
            undos,
            ended: true,
            ..self
        }
    }

    /// Returns the session: its id, what was asked for, and when it was created.
    pub(crate) fn session(&self) -> Option<(SessionId, CreateSession, String)> {
        labels::read(&self.labels.clone().into_iter().collect())
    }
}

/// Names the effect, for people.
impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveContainer { name, .. } => write!(f, "Container `{name}`"),
            Self::RemoveVolume { name, .. } => write!(f, "Volume `{name}`"),
            Self::RemoveNetwork { name } => write!(f, "Network `{name}`"),
            Self::StopContainer { name, .. } => write!(f, "Start of container `{name}`"),
            Self::StartContainer { name, .. } => write!(f, "Stop of container `{name}`"),
            Self::PauseContainer { name, .. } => write!(f, "Continuation of container `{name}`"),
            Self::RestoreContainer { name, .. } => write!(f, "Replacement of container `{name}`"),
        }
    }
}

/// Makes sure that this is the only process that writes here; the lock goes with the process.
fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = own_file::open_lock(&folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another Cove uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read_all(folder: &Path) -> Vec<Record> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            log::warn!("failed to read the journal: {error}");
            return Vec::new();
        }
    };
    let mut records = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(id) = name.strip_suffix(ENDING) else {
            continue;
        };
        records.extend(own_file::read(&path, MOST_BYTES, |bytes| {
            understand(bytes, id)
        }));
    }
    records
}

fn understand(bytes: &[u8], id: &str) -> Result<Record, String> {
    let mut record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match record.version {
        VERSION => {}
        FIRST_VERSION => record.version = VERSION,
        other => return Err(format!("version {other} is not known")),
    }
    match record.session() {
        Some((session, ..)) if session.to_string() == id => Ok(record),
        Some(_) | None => Err("it is not about the session of its name".to_owned()),
    }
}

fn replace(path: &Path, record: &Record) -> io::Result<()> {
    own_file::replace(path, &serde_json::to_vec(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_id::EngineId;
    use serde_json::json;
    use tempfile::NamedTempFile;

    fn record(id: SessionId) -> Record {
        let request = CreateSession::from_json(&json!({ "workspace_id": "shop" })).unwrap();
        let engine = EngineIdentity {
            id: EngineId::of(&["docker", "7TRN", "/var/lib/docker"]),
            name: "Docker".to_owned(),
            address: "unix:///var/run/docker.sock".to_owned(),
        };
        let mut record = Record::new(Some(engine), id, &request, "2026-01-02T03:04:05Z", None);
        record.undos.push(Undo::RemoveVolume {
            name: id.resource_name(),
            may_lack_labels: false,
        });
        record
    }

    #[tokio::test]
    async fn what_was_written_down_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (SessionId::random(), SessionId::random());
        let (journal, left) = Journal::open(folder.path());
        assert_eq!(left, []);
        let journal = Arc::new(journal);
        journal.write(one, record(one)).await;
        journal.write(two, record(two)).await;
        let longer = record(two).ended(Vec::new());
        journal.write(two, longer.clone()).await;
        journal.forget(one).await;
        journal.forget(one).await;

        let (other, left) = Journal::open(folder.path());
        assert_eq!((other.folder, left), (None, Vec::new()), "it is in use");
        drop(journal);
        assert_eq!(Journal::open(folder.path()).1, [longer]);
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let good = SessionId::random();
        let text = serde_json::to_vec(&record(good)).unwrap();
        fs::write(folder.path().join(format!("{good}.json")), &text).unwrap();
        let other_version = String::from_utf8(text.clone())
            .unwrap()
            .replace("\"version\":2", "\"version\":3");
        let damaged: [&[u8]; 6] = [
            &text[..text.len() / 2],
            b"",
            &[0, 159, 146, 150],
            other_version.as_bytes(),
            // A record of another session than the file's name says.
            &text,
            &vec![b' '; 1_000_001],
        ];
        let names: Vec<_> = damaged
            .iter()
            .map(|bytes| {
                let name = format!("{}.json", SessionId::random());
                fs::write(folder.path().join(&name), bytes).unwrap();
                name
            })
            .collect();

        let (_journal, left) = Journal::open(folder.path());
        assert_eq!(left, [record(good)]);
        for (name, bytes) in names.iter().zip(damaged) {
            let aside = folder.path().join(format!("{name}.damaged"));
            assert_eq!(fs::read(aside).unwrap(), bytes, "what was there is kept");
            assert!(!folder.path().join(name).exists());
        }
    }

    #[test]
    fn a_record_of_the_first_version_is_read_and_names_no_engine() {
        let folder = tempfile::tempdir().unwrap();
        let id: SessionId = "0b0e8a5e-6d0a-4b7e-9d11-0a4f0e6c7a55".parse().unwrap();
        let text = json!({
            "version": 1,
            "labels": {
                "dev.cove.session": id.to_string(),
                "dev.cove.workspace": "shop",
                "dev.cove.image": "docker.io/library/python:3.13",
                "dev.cove.created": "2026-01-02T03:04:05Z",
            },
            "source": null,
            "undos": [
                { "undo": "remove_volume", "name": id.resource_name(), "may_lack_labels": false },
                { "undo": "remove_container", "name": id.resource_name(), "spare": null },
            ],
            "ended": true,
        });
        let path = folder.path().join(format!("{id}.json"));
        fs::write(&path, text.to_string()).unwrap();
        let (_journal, left) = Journal::open(folder.path());
        let [record] = &left[..] else {
            panic!("{left:?}");
        };
        assert_eq!(record.session().map(|(session, ..)| session), Some(id));
        assert_eq!((record.engine.clone(), record.undos.len()), (None, 2));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_done_without() {
        let file = NamedTempFile::new().unwrap();
        let (journal, left) = Journal::open(&file.path().join("journal"));
        assert_eq!(left, []);
        let (journal, id) = (Arc::new(journal), SessionId::random());
        journal.write(id, record(id)).await;
        journal.forget(id).await;
    }
}
