//! A session's files on their way into a tar archive, and how much there is of them. Nothing is written but the
//! archive, and that only under its name when it is complete.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cove_agent::WORKSPACE;
use cove_agent::tree::Total;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use super::entry::Export;
use crate::archive::{self, Event, Modified};
use crate::crossing::{Files, files_of, totals_of};
use crate::engine::ContainerFacts;
use crate::error::Error;
use crate::event::{ExportEvent, ExportOutcome, SessionEvent};
use crate::session::{ExportProgress, SessionId, Usage};
use crate::words::tamed;

/// How often the progress of an export is told.
const TELL: Duration = Duration::from_millis(250);
/// How long looking at a workspace may take before its size is only a lower bound.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// Pieces of an archive that may wait for the disk.
const QUEUE: usize = 16;
/// The most folders that are named of those that an image keeps in volumes of their own.
const MOST_FOLDERS: usize = 20;

impl Sessions {
    /// Starts to write a session's files into a tar archive at `path`, and returns at once; events tell
    /// the rest. Does nothing while an export of the session is under way.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::SessionNotReady`] for one without a container to read from.
    pub async fn export(&self, id: SessionId, path: PathBuf) -> Result<(), Error> {
        let (engine, container) = self.container_of(id).await?;
        let container = container.id;
        let cancel = CancellationToken::new();
        {
            let mut entries = self.shared.entries();
            let entry = entries
                .get_mut(&id)
                .ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
            if entry.export.is_some() {
                return Ok(());
            }
            entry.export = Some(Export {
                progress: ExportProgress::default(),
                cancel: cancel.clone(),
            });
        }
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            let (told, name) = (&sessions, file_name(&path));
            let work = async {
                let files = files_of(&*engine, &container);
                let tell = |progress| told.tell_export(id, &name, progress, None, None);
                write(&path, files.await?, tell).await
            };
            let result = cancel.run_until_cancelled(work).await;
            let (outcome, error) = match result {
                None => (ExportOutcome::Cancelled, None),
                Some(Ok(())) => (ExportOutcome::Done, None),
                Some(Err(error)) => (ExportOutcome::Failed, Some(error.report())),
            };
            let progress = told.exported(id);
            told.tell_export(id, &name, progress, Some(outcome), error);
        });
        Ok(())
    }

    /// Ends an export; there is no archive then. Does nothing without one.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn cancel_export(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        self.with_entry(id, |entry| {
            if let Some(export) = &entry.export {
                export.cancel.cancel();
            }
        })
    }

    /// Returns how much a session's workspace holds and when it was last changed, as far as that can be
    /// seen within 3 s. Nothing is known of a session without a container.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], and what the engine answers.
    pub async fn usage(&self, id: SessionId) -> Result<Usage, Error> {
        let (engine, container) = match self.container_of(id).await {
            Ok(found) => found,
            Err(Error::SessionNotReady(_)) => return Ok(Usage::default()),
            Err(error) => return Err(error),
        };
        let look = async {
            if let Some(totals) = totals_of(&*engine, &container.id).await {
                return Ok(count(totals).await);
            }
            Ok(measure(files_of(&*engine, &container.id).await?).await)
        };
        // Each of them ends by itself once it has begun.
        let looked = tokio::time::timeout(2 * LOOK_LIMIT, look).await;
        let usage = looked.unwrap_or_else(|_elapsed| Ok(Usage::default()))?;
        Ok(Usage {
            other_volumes: folders_elsewhere(&container),
            ..usage
        })
    }

    fn exported(&self, id: SessionId) -> ExportProgress {
        let progress = self.with_entry(id, |entry| {
            entry.export.as_ref().map(|export| export.progress)
        });
        progress.ok().flatten().unwrap_or_default()
    }

    fn tell_export(
        &self,
        session_id: SessionId,
        file_name: &str,
        progress: ExportProgress,
        outcome: Option<ExportOutcome>,
        error: Option<crate::error::ErrorReport>,
    ) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&session_id) else {
            return;
        };
        let Some(export) = &mut entry.export else {
            return;
        };
        export.progress = progress;
        let ExportProgress { bytes, total_bytes } = progress;
        if outcome.is_some() {
            entry.export = None;
        }
        entries.tell_session(session_id, |session| {
            SessionEvent::Export(ExportEvent {
                session_id,
                seq: session.seq,
                bytes,
                total_bytes,
                outcome,
                file_name: file_name.to_owned(),
                error,
            })
        });
    }
}

/// Returns the folders outside `/workspace` that are volumes.
fn folders_elsewhere(container: &ContainerFacts) -> Vec<String> {
    let paths = container.volumes.iter().map(|volume| tamed(&volume.path));
    let mut elsewhere: Vec<_> = paths
        .filter(|path| !Path::new(path).starts_with(WORKSPACE))
        .collect();
    elsewhere.sort();
    elsewhere.truncate(MOST_FOLDERS);
    elsewhere
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What is done to the file that becomes the archive.
enum Step {
    Write(Bytes),
    Zeros(usize),
    /// What was written from here on does not count.
    Back(u64),
}

/// Writes beside the archive's place, and puts it there when it is complete and on the disk.
async fn write(path: &Path, mut files: Files, tell: impl Fn(ExportProgress)) -> Result<(), Error> {
    let failed = |message: String| Error::Export {
        path: path.display().to_string(),
        message,
    };
    let (sender, mut queue) = mpsc::channel::<Step>(QUEUE);
    let place = path.to_owned();
    let complete = CancellationToken::new();
    let is_complete = complete.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = NamedTempFile::new_in(folder_of(&place))?;
        while let Some(step) = queue.blocking_recv() {
            match step {
                Step::Write(bytes) => file.write_all(&bytes)?,
                Step::Zeros(count) => {
                    io::copy(&mut io::repeat(0).take(count as u64), &mut file)?;
                }
                Step::Back(length) => {
                    file.as_file().set_len(length)?;
                    file.seek(SeekFrom::Start(length))?;
                }
            }
        }
        // The queue also ends when the export does, and then half an archive must not look like one.
        if is_complete.is_cancelled() {
            file.as_file().sync_all()?;
            file.persist(&place)?;
        }
        Ok::<_, io::Error>(())
    });
    let mut progress = ExportProgress::default();
    let mut told = Instant::now();
    // Zeros that are due behind the last member, and where that began.
    let (mut padding, mut begun) = (0, 0);
    'files: while let Some(event) = files.try_next().await? {
        let steps = match event {
            Event::Total(total) => {
                progress.total_bytes = Some(total);
                tell(progress);
                check_room(folder_of(path), total).await.map_err(failed)?;
                continue;
            }
            Event::Void => {
                progress.bytes = begun;
                padding = 0;
                [Some(Step::Back(begun)), None]
            }
            Event::Member(member) => {
                begun = progress.bytes + padding as u64;
                let before = Step::Zeros(padding);
                padding = archive::write::padding(member.kind.stored());
                let head = archive::write::head(&member);
                [Some(before), Some(Step::Write(head.into()))]
            }
            Event::Data { bytes, .. } => [Some(Step::Write(bytes)), None],
        };
        for step in steps.into_iter().flatten() {
            progress.bytes += match &step {
                Step::Write(piece) => piece.len() as u64,
                Step::Zeros(count) => *count as u64,
                Step::Back(_) => 0,
            };
            if sender.send(step).await.is_err() {
                // The writer has failed, and says why.
                break 'files;
            }
        }
        if told.elapsed() >= TELL {
            tell(progress);
            told = Instant::now();
        }
    }
    let end = [Step::Zeros(padding), Step::Zeros(archive::write::END)];
    for step in end {
        // A writer that has failed says why below.
        let _ = sender.send(step).await;
    }
    complete.cancel();
    drop(sender);
    tell(progress);
    match writer.await {
        Ok(written) => written.map_err(|error| failed(without_place(&error))),
        Err(error) => Err(Error::Internal(format!("an export was lost: {error}"))),
    }
}

/// Refuses at once what the disk of a folder has no room for.
pub(super) async fn check_room(folder: &Path, bytes: u64) -> Result<(), String> {
    let folder = folder.to_owned();
    let free = tokio::task::spawn_blocking(move || fs4::available_space(folder));
    match free.await {
        Ok(Ok(free)) if free < bytes => Err(format!(
            "the files have {} MB, and {} MB are free there",
            bytes.div_ceil(1_000_000),
            free / 1_000_000
        )),
        // A disk that does not say is found out by its writes.
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Says what this machine said, without the name of a file that the user has never heard of.
fn without_place(error: &io::Error) -> String {
    let text = error.to_string();
    let cause = text.split_once(" at path ").map(|(cause, _)| cause);
    cause.map_or_else(|| text.clone(), str::to_owned)
}

/// Takes the counts of who can count.
async fn count(mut totals: BoxStream<'static, Result<Total, Error>>) -> Usage {
    let mut usage = Usage::default();
    let listen = async {
        while let Ok(Some(total)) = totals.try_next().await {
            usage = Usage {
                size_bytes: Some(total.bytes),
                stored_bytes: Some(total.stored),
                at_least: !total.is_all,
                modified_ms: total.newest_ms,
                free_bytes: total.free,
                disk_bytes: total.capacity,
                ..Usage::default()
            };
        }
    };
    // What takes longer is counted as far as it goes.
    let _ = tokio::time::timeout(LOOK_LIMIT, listen).await;
    usage
}

/// Counts what a workspace holds, and forgets it.
async fn measure(mut files: Files) -> Usage {
    let mut usage = Usage {
        size_bytes: Some(0),
        at_least: true,
        ..Usage::default()
    };
    let count = async {
        loop {
            match files.try_next().await {
                Ok(Some(Event::Member(member))) => {
                    let size = usage.size_bytes.unwrap_or_default();
                    usage.size_bytes = Some(size.saturating_add(member.kind.size()));
                    let Modified {
                        seconds,
                        nanoseconds,
                    } = member.modified;
                    let modified =
                        seconds.saturating_mul(1000) + i64::from(nanoseconds / 1_000_000);
                    usage.modified_ms = usage.modified_ms.max(Some(modified));
                }
                Ok(Some(Event::Total(_) | Event::Void | Event::Data { .. })) => {}
                Ok(None) => {
                    usage.at_least = false;
                    break;
                }
                // What is cut off is counted as far as it goes.
                Err(error) => {
                    log::info!("a workspace could not be measured whole: {error}");
                    break;
                }
            }
        }
    };
    // What takes longer is counted as far as it goes.
    let _ = tokio::time::timeout(LOOK_LIMIT, count).await;
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Kind, Member};
    use futures_util::{StreamExt, stream};

    fn file(path: &str, size: u64, seconds: i64) -> Event {
        Event::Member(Member {
            path: path.as_bytes().to_vec(),
            kind: Kind::File {
                size,
                extents: None,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Modified {
                seconds,
                nanoseconds: 0,
            },
        })
    }

    fn data(bytes: &'static [u8]) -> Event {
        Event::Data {
            offset: 0,
            bytes: Bytes::from_static(bytes),
        }
    }

    #[tokio::test]
    async fn an_archive_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files.tar");
        let left = || std::fs::read_dir(folder.path()).unwrap().count();
        let cut = Err(Error::FilesIncomplete("cut".to_owned()));
        let broken = stream::iter([Ok(file("a", 4, 0)), Ok(data(b"half")), cut]);
        write(&path, broken.boxed(), |_| ()).await.unwrap_err();
        while left() > 0 {
            tokio::task::yield_now().await;
        }
        let whole = stream::iter([file("a", 4, 0), data(b"half")]).map(Ok);
        write(&path, whole.boxed(), |_| ()).await.unwrap();
        let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
        let mut content = String::new();
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!((content.as_str(), left()), ("half", 1));
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_named_as_the_user_chose_it() {
        let folder = tempfile::Builder::new().prefix("chosen").tempdir();
        let folder = folder.unwrap();
        let path = folder.path().join("none/files.tar");
        let error = write(&path, stream::empty().boxed(), |_| ()).await;
        let message = error.unwrap_err().to_string();
        assert!(message.contains("none/files.tar"), "{message}");
        assert!(!message.contains(".tmp"), "{message}");
    }

    #[tokio::test]
    async fn what_a_workspace_holds_is_counted_whatever_its_size() {
        let files = [file("a", 10, 5), file("b", 9 << 30, 9), file("c", 1, 7)];
        let usage = measure(stream::iter(files).map(Ok).boxed()).await;
        let expected = Usage {
            size_bytes: Some((9 << 30) + 11),
            at_least: false,
            modified_ms: Some(9_000),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[tokio::test]
    async fn a_file_that_came_again_is_in_the_archive_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files.tar");
        let events = [
            file("a", 3, 0),
            data(b"one"),
            file("log", 600, 0),
            data(&[b'x'; 520]),
            Event::Void,
            file("log", 2, 0),
            data(b"yz"),
            file("z", 1, 0),
            data(b"z"),
        ];
        let events = stream::iter(events).map(Ok);
        write(&path, events.boxed(), |_| ()).await.unwrap();
        let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let (mut entry, mut content) = (entry.unwrap(), String::new());
            entry.read_to_string(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        let expected = [("a", "one"), ("log", "yz"), ("z", "z")];
        let expected = expected.map(|(name, content)| (name.to_owned(), content.to_owned()));
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn what_has_no_room_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files.tar");
        let endless = stream::iter([Event::Total(1 << 60)]).map(Ok);
        let endless = endless.chain(stream::pending()).boxed();
        let error = write(&path, endless, |_| ()).await.unwrap_err();
        assert!(error.to_string().contains("MB are free"), "{error}");
    }
}
