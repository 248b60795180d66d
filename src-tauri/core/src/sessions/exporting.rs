//! A session's files on their way into a tar archive, and how much there is of them. Both read what the
//! engine packs; nothing is written but the archive, and that only under its name when it is complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::Sessions;
use super::entry::Export;
use crate::error::Error;
use crate::event::{ExportEvent, ExportOutcome, SessionEvent};
use crate::provision::{WORKSPACE_CONTENT, container_of};
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
        let container = container_of(&*self.shared.engine, id).await?;
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
                let pieces = told.shared.engine.download(&container, WORKSPACE_CONTENT);
                let tell = |bytes| told.tell_export(id, &name, bytes, None, None);
                write(&path, pieces.await?, tell).await
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
        let container = match container_of(engine, id).await {
            Ok(container) => container,
            Err(Error::SessionNotReady(_)) => return Ok(Usage::default()),
            Err(error) => return Err(error),
        };
        let archive = engine.download(&container, WORKSPACE_CONTENT).await?;
        measure(archive).await
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

/// Writes beside the archive's place, and puts it there when it is complete and on the disk.
async fn write(
    path: &Path,
    mut pieces: BoxStream<'static, Result<Bytes, Error>>,
    tell: impl Fn(u64),
) -> Result<(), Error> {
    let failed = |error: &io::Error| Error::Export {
        path: path.display().to_string(),
        message: error.to_string(),
    };
    let (sender, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    let place = path.to_owned();
    let complete = CancellationToken::new();
    let is_complete = complete.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let folder = place.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(folder)?;
        while let Some(piece) = queue.blocking_recv() {
            file.write_all(&piece)?;
        }
        // The queue also ends when the export does, and then half an archive must not look like one.
        if is_complete.is_cancelled() {
            file.as_file().sync_all()?;
            file.persist(&place)?;
        }
        Ok::<_, io::Error>(())
    });
    let (mut bytes, mut told) = (0, Instant::now());
    while let Some(piece) = pieces.try_next().await? {
        bytes += piece.len() as u64;
        if sender.send(piece).await.is_err() {
            // The writer has failed, and says why.
            break;
        }
        if told.elapsed() >= TELL {
            tell(bytes);
            told = Instant::now();
        }
    }
    complete.cancel();
    drop(sender);
    tell(bytes);
    match writer.await {
        Ok(written) => written.map_err(|error| failed(&error)),
        Err(error) => Err(Error::Internal(format!("an export was lost: {error}"))),
    }
}

/// Counts what an archive holds, and forgets it.
async fn measure(archive: BoxStream<'static, Result<Bytes, Error>>) -> Result<Usage, Error> {
    let until = Instant::now() + LOOK_LIMIT;
    let archive = archive.map_err(|error| io::Error::other(error.to_string()));
    // An archive that is cut off is counted as far as it goes.
    let archive = archive.take_until(tokio::time::sleep_until(until));
    let reader = SyncIoBridge::new(StreamReader::new(archive.boxed()));
    let counted = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(reader);
        let (mut size, mut newest) = (0, None);
        let complete = (|| -> io::Result<()> {
            for file in archive.entries()? {
                let header = file?.header().clone();
                size += header.size()?;
                newest = newest.max(Some(header.mtime()?));
            }
            Ok(())
        })()
        .is_ok();
        (size, newest, complete)
    });
    let (size, newest, complete) = counted
        .await
        .map_err(|error| Error::Internal(format!("failed to look at the files: {error}")))?;
    Ok(Usage {
        size_bytes: Some(size),
        at_least: !complete,
        modified_ms: newest
            .and_then(|seconds: u64| i64::try_from(seconds).ok())
            .map(|seconds| seconds.saturating_mul(1000)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn pieces(parts: Vec<Result<Bytes, Error>>) -> BoxStream<'static, Result<Bytes, Error>> {
        stream::iter(parts).boxed()
    }

    #[tokio::test]
    async fn an_archive_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files.tar");
        let left = || std::fs::read_dir(folder.path()).unwrap().count();
        let broken = vec![
            Ok(Bytes::from_static(b"half")),
            Err(Error::Internal("cut".to_owned())),
        ];
        write(&path, pieces(broken), |_| ()).await.unwrap_err();
        while left() > 0 {
            tokio::task::yield_now().await;
        }
        let whole = vec![Ok(Bytes::from_static(b"ha")), Ok(Bytes::from_static(b"lf"))];
        write(&path, pieces(whole), |_| ()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half");
        assert_eq!(left(), 1);
    }

    #[tokio::test]
    async fn what_an_archive_holds_is_counted() {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, size, time) in [("a", 10_u64, 5_u64), ("b", 700, 9), ("c", 1, 7)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mtime(time);
            let content = vec![b'x'; usize::try_from(size).unwrap()];
            archive.append_data(&mut header, name, &*content).unwrap();
        }
        let archive = Bytes::from(archive.into_inner().unwrap());
        let usage = measure(pieces(vec![Ok(archive)])).await.unwrap();
        let expected = Usage {
            size_bytes: Some(711),
            at_least: false,
            modified_ms: Some(9_000),
        };
        assert_eq!(usage, expected);
    }
}
