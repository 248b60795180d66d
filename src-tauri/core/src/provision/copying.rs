//! Files for a new session: another session's, or those of a tar archive. They go from engine to engine
//! or from disk to engine as a stream; nothing is unpacked here.

use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio_util::io::ReaderStream;

use super::unwind::Unwind;
use super::{Monitor, Run, name_aside};
use crate::engine::{Archive, Engine};
use crate::error::Error;
use crate::session::{SessionId, Source};

/// A folder's content without the folder itself, as engines read it.
pub(crate) const WORKSPACE_CONTENT: &str = concat!("/workspace", "/.");
/// Bytes that are read from a disk at once.
const PIECE: usize = 256 * 1024;

impl Run {
    /// Fills the workspace of a container that does not run yet. The undo is that of the volume.
    pub(super) async fn copy_files(
        &self,
        source: &Source,
        container: &str,
        unwind: &Unwind,
    ) -> Result<(), Error> {
        self.monitor.say("Copying files");
        let engine = Arc::clone(&self.engine);
        let (source, target) = (source.clone(), container.to_owned());
        let monitor = Arc::clone(&self.monitor);
        unwind
            .effect(None, async move {
                copy(&*engine, &source, &target, &monitor).await
            })
            .await
    }
}

async fn copy(
    engine: &dyn Engine,
    source: &Source,
    target: &str,
    monitor: &Arc<Monitor>,
) -> Result<(), Error> {
    // An engine that is fed by a broken stream says less than the stream's own error.
    let broken = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&broken);
    let (archive, total) = match source {
        Source::Session { id } => {
            let from = container_of(engine, *id).await?;
            let files = engine.download(&from, WORKSPACE_CONTENT).await?;
            let files = files.map_err(move |error| {
                let said = io::Error::other(error.to_string());
                *keep.lock() = Some(error);
                said
            });
            (files.boxed(), None)
        }
        Source::Archive { path } => {
            let unreadable =
                |error: &io::Error| Error::field("archive", format!("cannot be read: {error}"));
            let file = tokio::fs::File::open(path)
                .await
                .map_err(|error| unreadable(&error))?;
            let length = file.metadata().await.map_err(|error| unreadable(&error))?;
            let files = ReaderStream::with_capacity(file, PIECE);
            (files.boxed(), Some(length.len()))
        }
    };
    let uploaded = engine
        .upload(
            target,
            cove_agent::WORKSPACE,
            counted(archive, total, monitor),
        )
        .await;
    let broken = broken.lock().take();
    match (uploaded, broken) {
        (Err(_), Some(error)) => Err(error),
        // The engine has nothing against the container: it cannot make sense of the archive.
        (Err(Error::EngineRefused { message, .. }), None)
            if matches!(source, Source::Archive { .. }) =>
        {
            Err(Error::field(
                "archive",
                format!("is not a tar archive that the engine can unpack: {message}"),
            ))
        }
        (result, _) => result,
    }
}

/// Says how much has gone by.
fn counted(archive: Archive, total: Option<u64>, monitor: &Arc<Monitor>) -> Archive {
    let monitor = Arc::clone(monitor);
    let mut bytes = 0;
    archive
        .inspect_ok(move |piece| {
            bytes += piece.len() as u64;
            let done = bytes / 1_000_000;
            monitor.say(match total {
                Some(total) => format!("Copying files: {done} of {} MB", total / 1_000_000),
                None => format!("Copying files: {done} MB"),
            });
        })
        .boxed()
}

/// Returns the container that a session's files can be read from.
///
/// # Errors
/// [`Error::SessionNotReady`] when it has none.
pub(crate) async fn container_of(engine: &dyn Engine, id: SessionId) -> Result<String, Error> {
    let aside = name_aside(id);
    let owned = engine.owned(Some(id)).await?;
    let mut containers = owned.containers.into_iter();
    containers
        .find(|container| container.name != aside)
        .map(|container| container.id)
        .ok_or(Error::SessionNotReady("without a container"))
}
