//! A session's files on their way into a tar archive, and how much there is of them. Nothing is written but the
//! archive, and that only under its name when it is complete.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use super::entry::Export;
use crate::archive::{self, Event, Modified};
use crate::crossing::{Files, files_of};
use crate::engine::in_time;
use crate::error::Error;
use crate::event::{ExportEvent, ExportOutcome, SessionEvent};
use crate::provision::container_of;
use crate::session::{ExportProgress, SessionId, Usage};

/// How often the progress of an export is told.
const TELL: Duration = Duration::from_millis(250);
/// How long looking at a workspace may take before its size is only a lower bound.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// Pieces of an archive that may wait for the disk.
const QUEUE: usize = 16;

impl Sessions {
    /// Starts to write a session's files into a tar archive at `path`, and returns at once; events tell
    /// the rest. Does nothing while an export of the session is under way.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::SessionNotReady`] for one without a container to read from.
    pub async fn export(&self, id: SessionId, path: PathBuf) -> Result<(), Error> {
        self.know(id).await?;
        let look = container_of(&*self.shared.engine, id);
        let container = in_time("look for the session's container", look).await?;
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
                progress: ExportProgress {
                    bytes: 0,
                    total_bytes: None,
                },
                cancel: cancel.clone(),
            });
        }
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            let (told, name) = (&sessions, file_name(&path));
            let work = async {
                let files = files_of(&*told.shared.engine, &container);
                let tell = |bytes| told.tell_export(id, &name, bytes, None, None);
                write(&path, files.await?, tell).await
            };
            let result = cancel.run_until_cancelled(work).await;
            let (outcome, error) = match result {
                None => (ExportOutcome::Cancelled, None),
                Some(Ok(())) => (ExportOutcome::Done, None),
                Some(Err(error)) => (ExportOutcome::Failed, Some(error.report())),
            };
            let bytes = told.exported(id);
            told.tell_export(id, &name, bytes, Some(outcome), error);
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
        self.know(id).await?;
        let engine = &*self.shared.engine;
        let look = in_time("look for the session's container", container_of(engine, id));
        let container = match look.await {
            Ok(container) => container,
            Err(Error::SessionNotReady(_)) => return Ok(Usage::default()),
            Err(error) => return Err(error),
        };
        match tokio::time::timeout(LOOK_LIMIT, files_of(engine, &container)).await {
            Ok(files) => Ok(measure(files?).await),
            Err(_elapsed) => Ok(Usage::default()),
        }
    }

    fn exported(&self, id: SessionId) -> u64 {
        let bytes = self.with_entry(id, |entry| {
            entry.export.as_ref().map(|export| export.progress.bytes)
        });
        bytes.ok().flatten().unwrap_or_default()
    }

    fn tell_export(
        &self,
        session_id: SessionId,
        file_name: &str,
        bytes: u64,
        outcome: Option<ExportOutcome>,
        error: Option<crate::error::ErrorReport>,
    ) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&session_id) else {
            return;
        };
        entry.seq += 1;
        let Some(export) = &mut entry.export else {
            return;
        };
        export.progress.bytes = bytes;
        let total_bytes = export.progress.total_bytes;
        if outcome.is_some() {
            entry.export = None;
        }
        let event = SessionEvent::Export(ExportEvent {
            session_id,
            seq: entry.seq,
            bytes,
            total_bytes,
            outcome,
            file_name: file_name.to_owned(),
            error,
        });
        self.shared.reporter.report(&event);
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What is done to the file that becomes the archive.
enum Step {
    Write(Bytes),
    Zeros(usize),
}

/// Writes beside the archive's place, and puts it there when it is complete and on the disk.
async fn write(path: &Path, mut files: Files, tell: impl Fn(u64)) -> Result<(), Error> {
    let failed = |error: &io::Error| Error::Export {
        path: path.display().to_string(),
        message: without_place(error),
    };
    let (sender, mut queue) = mpsc::channel::<Step>(QUEUE);
    let place = path.to_owned();
    let complete = CancellationToken::new();
    let is_complete = complete.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let folder = place.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(folder)?;
        while let Some(step) = queue.blocking_recv() {
            match step {
                Step::Write(bytes) => file.write_all(&bytes)?,
                Step::Zeros(count) => {
                    io::copy(&mut io::repeat(0).take(count as u64), &mut file)?;
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
    let (mut bytes, mut told) = (0, Instant::now());
    let mut padding = 0;
    'files: while let Some(event) = files.try_next().await? {
        let steps = match event {
            Event::Member(member) => {
                let before = Step::Zeros(padding);
                padding = archive::write::padding(member.kind.stored());
                [before, Step::Write(archive::write::head(&member).into())]
            }
            Event::Data { bytes, .. } => [Step::Write(bytes), Step::Zeros(0)],
        };
        for step in steps {
            bytes += match &step {
                Step::Write(piece) => piece.len() as u64,
                Step::Zeros(count) => *count as u64,
            };
            if sender.send(step).await.is_err() {
                // The writer has failed, and says why.
                break 'files;
            }
        }
        if told.elapsed() >= TELL {
            tell(bytes);
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
    tell(bytes);
    match writer.await {
        Ok(written) => written.map_err(|error| failed(&error)),
        Err(error) => Err(Error::Internal(format!("an export was lost: {error}"))),
    }
}

/// Says what this machine said, without the name of a file that the user has never heard of.
fn without_place(error: &io::Error) -> String {
    let text = error.to_string();
    let cause = text.split_once(" at path ").map(|(cause, _)| cause);
    cause.map_or_else(|| text.clone(), str::to_owned)
}

/// Counts what a workspace holds, and forgets it.
async fn measure(mut files: Files) -> Usage {
    let mut usage = Usage {
        size_bytes: Some(0),
        at_least: true,
        modified_ms: None,
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
                Ok(Some(Event::Data { .. })) => {}
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
        };
        assert_eq!(usage, expected);
    }
}
