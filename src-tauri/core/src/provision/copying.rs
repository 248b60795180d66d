//! Files for a new session: another session's, or those of an archive. They go as a stream into the container,
//! where the agent makes them; nothing is unpacked on this machine. Dropping the copying ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Monitor, Run, name_aside};
use crate::archive::{self, Event, Kind, Member, Modified};
use crate::crossing::{Chosen, Files, files_of, fill, open_chosen};
use crate::engine::{ContainerFacts, Engine};
use crate::error::Error;
use crate::session::{SessionId, Source};

impl Run {
    /// Fills the workspace of a container that runs. The undo is that of the volume.
    pub(super) async fn copy_files(
        &self,
        source: &Source,
        container: &str,
        user: &str,
    ) -> Result<(), Error> {
        self.supervision.monitor.say("Copying files");
        let engine = &*self.engine;
        let monitor = Arc::clone(&self.supervision.monitor);
        match source {
            Source::Session { id } => {
                let from = container_of(engine, *id).await?;
                let files = files_of(engine, &from.id).await?;
                let (mut done, mut total) = (0, None);
                let files = files.inspect_ok(move |event| {
                    match event {
                        Event::Total(bytes) => total = Some(*bytes),
                        Event::Data { bytes, .. } => done += bytes.len() as u64,
                        Event::Void | Event::Member(_) => {}
                    }
                    say_how_far(&monitor, done, total);
                });
                let refuse = Error::FilesIncomplete;
                fill(engine, container, None, files.boxed(), refuse).await
            }
            Source::Archive { path } => {
                let Chosen {
                    files,
                    length,
                    read,
                } = open_chosen(path).await?;
                let files = not_empty(files).inspect_ok(move |_| {
                    say_how_far(&monitor, read.load(Ordering::Relaxed), Some(length));
                });
                let refuse =
                    |problem| Error::field("archive", format!("cannot be used: {problem}"));
                fill(engine, container, Some(user), files.boxed(), refuse).await
            }
        }
    }
}

/// Returns an archive with the mark that the files of a session have not come in whole; who has made them all
/// removes it. So a container that was stopped in the middle is never taken for a session.
pub(super) fn unfilled_mark() -> Vec<u8> {
    let directory = cove_agent::AGENT_DIRECTORY.trim_start_matches('/');
    let path = format!("{directory}/{}", cove_agent::tree::UNFILLED);
    let mut mark = archive::write::head(&Member {
        path: path.into_bytes(),
        kind: Kind::File {
            size: 0,
            extents: None,
        },
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: Modified::default(),
    });
    mark.resize(mark.len() + archive::write::END, 0);
    mark
}

/// Refuses an archive that holds nothing when it has come to its end.
fn not_empty(files: Files) -> Files {
    let start = (files, false);
    stream::try_unfold(start, async |(mut files, mut has_any)| {
        match files.try_next().await? {
            Some(event) => {
                has_any |= matches!(&event, Event::Member(member) if !member.path.is_empty());
                Ok(Some((event, (files, has_any))))
            }
            None if has_any => Ok(None),
            None => Err(Error::field("archive", "holds no files")),
        }
    })
    .boxed()
}

fn say_how_far(monitor: &Monitor, done: u64, total: Option<u64>) {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    monitor.say(match total {
        Some(total) => format!(
            "Copying files: {} of {} MB",
            megabytes(done),
            megabytes(total)
        ),
        None => format!("Copying files: {} MB", megabytes(done)),
    });
}

/// Returns the container that a session's files can be read from.
///
/// # Errors
/// [`Error::SessionNotReady`] when it has none.
pub(crate) async fn container_of(
    engine: &dyn Engine,
    id: SessionId,
) -> Result<ContainerFacts, Error> {
    let aside = name_aside(id);
    let owned = engine.owned(Some(id)).await?;
    let mut containers = owned.containers.into_iter();
    containers
        .find(|container| container.name != aside)
        .ok_or(Error::SessionNotReady("without a container"))
}
