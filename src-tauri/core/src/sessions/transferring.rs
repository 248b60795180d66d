//! Files on their way between a ready session and folders of this machine: which transfers there are, how far each is,
//! and its end. What one is to do is kept as long as somebody may want it to begin again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cove_agent::protocol::{Resume, Taken};
use cove_agent::{path, tree};
use futures_util::TryStreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::entry::OpenSession;
use super::exporting::check_room;
use super::{ConnectedSession, ReadySession, Sessions};
use crate::archive::{Event, Kind};
use crate::crossing::{
    ChosenEntry, Destination, Done, Placer, Sent, chosen_entries, fetch, names_of, send,
    tell_entries,
};
use crate::error::{Error, ErrorReport};
use crate::event::{Direction, SessionEvent, TransferEvent, TransferOutcome};
use crate::session::SessionId;
use crate::words::tamed;

/// How often the progress of a transfer is told.
const TELL: Duration = Duration::from_millis(200);
/// The most transfers of a session that go on at the same time; its agent takes no more.
const MOST_AT_ONCE: usize = 4;
/// The most transfers that are remembered, of all sessions.
const MOST_KEPT: usize = 64;
/// The most things that one transfer is about.
const MOST_THINGS: usize = cove_agent::protocol::MOST_PATHS;
/// Pieces that may wait for this machine's disk.
const QUEUE: usize = 4;
/// How long a connection is waited for that broke during a download.
const LINK_LIMIT: Duration = Duration::from_secs(60);
/// How often a download goes on that broke before anything came.
const MOST_BREAKS: u32 = 3;

/// The transfers that are under way, wait for an answer, or may begin again, the oldest first.
#[derive(Default)]
pub(super) struct Transfers(Mutex<Vec<Transfer>>);

struct Transfer {
    id: String,
    session: SessionId,
    task: Task,
    /// Ends it; absent for one that is not under way.
    cancel: Option<CancellationToken>,
}

/// What a transfer does.
#[derive(Clone)]
enum Task {
    Upload {
        chosen: Vec<ChosenEntry>,
        folder: String,
        taken: Taken,
        /// The names that were taken when it was asked what to do.
        occupied: Vec<String>,
    },
    Download {
        paths: Vec<String>,
        names: Vec<Vec<u8>>,
        destination: Destination,
    },
}

impl Task {
    const fn direction(&self) -> Direction {
        match self {
            Self::Upload { .. } => Direction::Upload,
            Self::Download { .. } => Direction::Download,
        }
    }

    /// Returns the name of the first thing that it is about, and how many there are.
    fn about(&self) -> (String, usize) {
        let shown = |name: &[u8]| tamed(&path::display_name(name));
        match self {
            Self::Upload { chosen, .. } => {
                let first = chosen.first().and_then(|first| tree::name(&first.name));
                (shown(&first.unwrap_or_default()), chosen.len())
            }
            Self::Download { names, .. } => {
                let first = names.first().map_or(&b""[..], Vec::as_slice);
                (shown(first), names.len())
            }
        }
    }
}

impl Transfers {
    fn begin(&self, session: SessionId, task: &Task) -> Result<(String, CancellationToken), Error> {
        let mut transfers = self.0.lock();
        let is_under_way =
            |transfer: &&Transfer| transfer.session == session && transfer.cancel.is_some();
        if transfers.iter().filter(is_under_way).count() >= MOST_AT_ONCE {
            return Err(Error::Transfer(format!(
                "{MOST_AT_ONCE} transfers of this session are under way; wait until one has ended"
            )));
        }
        if transfers.len() >= MOST_KEPT {
            let oldest = transfers
                .iter()
                .position(|transfer| transfer.cancel.is_none());
            transfers.remove(
                oldest.ok_or_else(|| {
                    Error::Transfer("too many transfers are under way".to_owned())
                })?,
            );
        }
        let (id, cancel) = (Uuid::new_v4().to_string(), CancellationToken::new());
        transfers.push(Transfer {
            id: id.clone(),
            session,
            task: task.clone(),
            cancel: Some(cancel.clone()),
        });
        Ok((id, cancel))
    }

    /// Takes one that is not under way.
    fn take(&self, session: SessionId, id: &str) -> Result<Task, Error> {
        let mut transfers = self.0.lock();
        let found = transfers.iter().position(|transfer| {
            transfer.session == session && transfer.id == id && transfer.cancel.is_none()
        });
        let found = found.ok_or_else(|| {
            Error::field("transfer_id", "names no transfer that could begin again")
        })?;
        Ok(transfers.remove(found).task)
    }

    /// Ends one, or forgets one that has ended.
    fn cancel(&self, session: SessionId, id: &str) {
        self.0.lock().retain(|transfer| {
            if transfer.session != session || transfer.id != id {
                return true;
            }
            if let Some(cancel) = &transfer.cancel {
                cancel.cancel();
            }
            transfer.cancel.is_some()
        });
    }

    /// Takes note that one has ended; `task` is what may begin again of it.
    fn end(&self, id: &str, task: Option<Task>) {
        let mut transfers = self.0.lock();
        match task {
            None => transfers.retain(|transfer| transfer.id != id),
            Some(task) => {
                if let Some(transfer) = transfers.iter_mut().find(|transfer| transfer.id == id) {
                    transfer.cancel = None;
                    transfer.task = task;
                }
            }
        }
    }

    /// Ends all.
    pub(super) fn cancel_all(&self) {
        for transfer in &*self.0.lock() {
            if let Some(cancel) = &transfer.cancel {
                cancel.cancel();
            }
        }
    }

    pub(super) fn under_way(&self) -> usize {
        let transfers = self.0.lock();
        transfers
            .iter()
            .filter(|transfer| transfer.cancel.is_some())
            .count()
    }
}

/// What becomes of what has the name of something that is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum NameTaken {
    /// It goes into the trash.
    Replace,
    /// It stays, and what comes gets a name like it.
    KeepBoth,
    /// It stays, and what comes under its name is left out.
    Skip,
}

/// How a transfer ended that did not fail.
enum End {
    Done,
    Asks(Vec<String>),
}

impl ReadySession {
    /// Begins to copy files and folders of this machine into a folder of a session's workspace, and returns the
    /// transfer's id; events tell the rest. If names are taken, nothing is copied before [`Self::answer_transfer`].
    ///
    /// # Errors
    /// [`Error::Transfer`].
    pub fn upload(&self, folder: String, paths: &[PathBuf]) -> Result<String, Error> {
        if !(1..=MOST_THINGS).contains(&paths.len()) {
            let count = paths.len();
            return Err(Error::Transfer(format!(
                "{count} things are not from 1 to {MOST_THINGS}; put them into a folder"
            )));
        }
        let task = Task::Upload {
            chosen: chosen_entries(paths)?,
            folder,
            taken: Taken::Refuse,
            occupied: Vec::new(),
        };
        self.begin_transfer(task)
    }

    /// Begins to copy entries of a session's workspace to this machine, and returns the transfer's id; events tell the
    /// rest.
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::PathOutsideWorkspace`], [`Error::Transfer`].
    pub fn download(&self, paths: Vec<String>, destination: Destination) -> Result<String, Error> {
        let task = Task::Download {
            names: names_to_download(&paths)?,
            paths,
            destination,
        };
        self.begin_transfer(task)
    }

    /// Lets an upload go on that found names taken, and returns its new id; `None` if nothing is left to upload.
    ///
    /// # Errors
    /// [`Error::Validation`] for one that has not asked; [`Error::Transfer`].
    pub fn answer_transfer(
        &self,
        transfer_id: &str,
        choice: NameTaken,
    ) -> Result<Option<String>, Error> {
        let task = match self
            .0
            .sessions
            .shared
            .transfers
            .take(self.0.id, transfer_id)?
        {
            Task::Upload {
                mut chosen,
                folder,
                occupied,
                ..
            } => {
                let taken = match choice {
                    NameTaken::Replace => Taken::Replace,
                    NameTaken::KeepBoth => Taken::KeepBoth,
                    NameTaken::Skip => {
                        chosen.retain(|chosen| !occupied.contains(&chosen.name));
                        Taken::Refuse
                    }
                };
                if chosen.is_empty() {
                    return Ok(None);
                }
                Task::Upload {
                    chosen,
                    folder,
                    taken,
                    occupied: Vec::new(),
                }
            }
            task @ Task::Download { .. } => task,
        };
        self.begin_transfer(task).map(Some)
    }

    /// Begins a transfer again that failed, and returns its new id.
    ///
    /// # Errors
    /// [`Error::Validation`] for one that is not there any more; [`Error::Transfer`].
    pub fn retry_transfer(&self, transfer_id: &str) -> Result<String, Error> {
        let task = self
            .0
            .sessions
            .shared
            .transfers
            .take(self.0.id, transfer_id)?;
        self.begin_transfer(task)
    }

    fn begin_transfer(&self, task: Task) -> Result<String, Error> {
        let ConnectedSession { sessions, id, open } = &self.0;
        let (transfer_id, cancel) = sessions.shared.transfers.begin(*id, &task)?;
        let named = transfer_id.clone();
        let (sessions, id, open) = (sessions.clone(), *id, Arc::clone(open));
        self.0.sessions.shared.tracker.spawn(async move {
            let teller = Teller {
                sessions: &sessions,
                open: &open,
                id,
                transfer_id: &named,
                task: &task,
                last: Mutex::new((Done::default(), None)),
            };
            teller.tell(None, None, &[]);
            let result = match &task {
                Task::Upload {
                    chosen,
                    folder,
                    taken,
                    ..
                } => {
                    let work = upload(&teller, chosen, folder, *taken);
                    cancel.run_until_cancelled(work).await
                }
                Task::Download {
                    paths,
                    names,
                    destination,
                } => download(&teller, paths, names, destination, &cancel).await,
            };
            let (outcome, error, occupied) = match result {
                None => (TransferOutcome::Cancelled, None, Vec::new()),
                Some(Ok(End::Done)) => (TransferOutcome::Done, None, Vec::new()),
                Some(Ok(End::Asks(occupied))) => (TransferOutcome::Asks, None, occupied),
                Some(Err(error)) => (TransferOutcome::Failed, Some(error.report()), Vec::new()),
            };
            let again = match outcome {
                TransferOutcome::Done | TransferOutcome::Cancelled => None,
                TransferOutcome::Failed | TransferOutcome::Asks => Some(asking(&task, &occupied)),
            };
            sessions.shared.transfers.end(&named, again);
            teller.tell(Some(outcome), error, &occupied);
        });
        Ok(transfer_id)
    }
}

impl Sessions {
    /// Ends a transfer, of which nothing is left then, or forgets one that has ended.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn cancel_transfer(&self, id: SessionId, transfer_id: &str) -> Result<(), Error> {
        self.know(id).await?;
        self.shared.transfers.cancel(id, transfer_id);
        Ok(())
    }
}

/// Returns a task with the names that it found taken.
fn asking(task: &Task, found: &[String]) -> Task {
    let mut task = task.clone();
    if let Task::Upload { occupied, .. } = &mut task {
        *occupied = found.to_vec();
    }
    task
}

fn names_to_download(paths: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    if paths.len() > MOST_THINGS {
        return Err(Error::field(
            "paths",
            format!("must be at most {MOST_THINGS}"),
        ));
    }
    names_of(paths)
}

/// Tells of a transfer.
struct Teller<'a> {
    sessions: &'a Sessions,
    open: &'a Arc<OpenSession>,
    id: SessionId,
    transfer_id: &'a str,
    task: &'a Task,
    /// How far it is, and when that was told.
    last: Mutex<(Done, Option<Instant>)>,
}

impl Teller<'_> {
    /// Takes note of how far the transfer is, and tells it now and then.
    fn note(&self, done: Done) {
        let now = Instant::now();
        let is_due = {
            let mut last = self.last.lock();
            last.0 = done;
            let is_due = last.1.is_none_or(|told| now - told >= TELL);
            if is_due {
                last.1 = Some(now);
            }
            is_due
        };
        if is_due {
            // It is a use of the session, also if nobody does anything else in it.
            self.open.touch();
            self.tell(None, None, &[]);
        }
    }

    fn tell(
        &self,
        outcome: Option<TransferOutcome>,
        error: Option<ErrorReport>,
        occupied: &[String],
    ) {
        let Done {
            files,
            bytes,
            total_bytes,
        } = self.last.lock().0;
        let (name, things) = self.task.about();
        let occupied = occupied.iter().filter_map(|name| tree::name(name));
        let occupied: Vec<String> = occupied
            .map(|name| tamed(&path::display_name(&name)))
            .collect();
        let folder = match self.task {
            Task::Upload { folder, .. } => Some(folder.clone()),
            Task::Download { .. } => None,
        };
        let mut entries = self.sessions.shared.entries();
        entries.tell_session(self.id, |session| {
            SessionEvent::Transfer(Box::new(TransferEvent {
                session_id: self.id,
                seq: session.seq,
                transfer_id: self.transfer_id.to_owned(),
                direction: self.task.direction(),
                name,
                things: things as u64,
                folder,
                files,
                bytes,
                total_bytes,
                outcome,
                occupied,
                error,
            }))
        });
    }
}

async fn upload(
    teller: &Teller<'_>,
    chosen: &[ChosenEntry],
    folder: &str,
    taken: Taken,
) -> Result<End, Error> {
    let names = chosen.iter().map(|chosen| chosen.name.clone()).collect();
    let sent = send(
        &teller.open.connection,
        (folder, names, taken),
        || tell_entries(chosen.to_vec()),
        |done| teller.note(done),
    );
    match sent.await? {
        Sent::Done => Ok(End::Done),
        Sent::Occupied(occupied) => Ok(End::Asks(occupied)),
    }
}

/// What is done with files that come.
enum Step {
    Take(Event),
    GoOn,
    Finish,
}

async fn download(
    teller: &Teller<'_>,
    paths: &[String],
    names: &[Vec<u8>],
    destination: &Destination,
    cancel: &CancellationToken,
) -> Option<Result<End, Error>> {
    let (sender, mut steps) = mpsc::channel::<Step>(QUEUE);
    let mut placer = Placer::new(destination.clone(), names.to_vec());
    let placing = tokio::task::spawn_blocking(move || {
        // Without a finish the files are not whole, and are removed.
        while let Some(step) = steps.blocking_recv() {
            match step {
                Step::Take(event) => placer.take(event)?,
                Step::GoOn => placer.go_on(),
                Step::Finish => return placer.finish(),
            }
        }
        Ok(())
    });
    let receiving = receive(teller, paths, destination.folder(), &sender);
    let received = cancel.run_until_cancelled(receiving).await;
    drop(sender);
    // Its own failure is why it was not heard out.
    let made = match placing.await {
        Ok(made) => made,
        Err(error) => Err(Error::Internal(format!("a download was lost: {error}"))),
    };
    received.map(|received| made.and(received).map(|()| End::Done))
}

/// Receives files until all have come. A single file goes on where it broke off, as long as it is the same.
async fn receive(
    teller: &Teller<'_>,
    paths: &[String],
    folder: &Path,
    steps: &mpsc::Sender<Step>,
) -> Result<(), Error> {
    let connection = &teller.open.connection;
    let mut state = Received::default();
    loop {
        let (before, resume) = (state.done.bytes, state.resume.clone());
        let goes_on = resume.is_some();
        let error = match receive_once(teller, paths, folder, steps, &mut state, resume).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error {
            Error::AgentUnavailable(_) if state.resume.is_some() => {}
            Error::Conflict { .. } if goes_on => {
                return Err(Error::FilesIncomplete(
                    "the connection broke, and the file changed before the download could go on"
                        .to_owned(),
                ));
            }
            error => return Err(error),
        }
        state.breaks = if state.done.bytes > before {
            0
        } else {
            state.breaks + 1
        };
        let linked = async {
            tokio::select! {
                () = connection.until(true) => true,
                () = connection.closed() => false,
            }
        };
        let is_linked = timeout(LINK_LIMIT, linked).await.unwrap_or(false);
        if !is_linked || state.breaks >= MOST_BREAKS {
            return Err(error_of_break());
        }
        log::info!("a download goes on at {} bytes", state.done.bytes);
        // Whoever writes has failed, and says why.
        let _ = steps.send(Step::GoOn).await;
    }
}

fn error_of_break() -> Error {
    Error::AgentUnavailable("the connection to the container broke".to_owned())
}

/// How far the files are that are received.
#[derive(Default)]
struct Received {
    done: Done,
    /// Where a single file goes on that breaks off now.
    resume: Option<Resume>,
    /// How often it broke since anything came.
    breaks: u32,
}

async fn receive_once(
    teller: &Teller<'_>,
    paths: &[String],
    folder: &Path,
    steps: &mpsc::Sender<Step>,
    state: &mut Received,
    resume: Option<Resume>,
) -> Result<(), Error> {
    let goes_on = resume.is_some();
    let (mut files, revision) = fetch(&teller.open.connection, paths, resume).await?;
    let mut is_checked = goes_on;
    // Bytes of the file that came last, which do not count if it changes.
    let mut of_file = 0;
    while let Some(event) = files.try_next().await? {
        match &event {
            Event::Total(total) => {
                state.done.total_bytes = Some(*total);
                if !std::mem::replace(&mut is_checked, true) {
                    let refused = |message| Error::Export {
                        path: folder.display().to_string(),
                        message,
                    };
                    check_room(folder, *total).await.map_err(refused)?;
                }
            }
            Event::Member(member) => {
                of_file = 0;
                if let Kind::File { .. } = member.kind {
                    state.done.files += u64::from(!goes_on);
                    if let (None, Some(revision)) = (&state.resume, &revision) {
                        let revision = revision.clone();
                        state.resume = Some(Resume {
                            offset: 0,
                            revision,
                        });
                    }
                }
            }
            Event::Data { offset, bytes } => {
                let length = bytes.len() as u64;
                of_file += length;
                state.done.bytes += length;
                if let Some(resume) = &mut state.resume {
                    resume.offset = offset + length;
                }
            }
            Event::Void => {
                state.done.files = state.done.files.saturating_sub(1);
                state.done.bytes = state.done.bytes.saturating_sub(of_file);
                state.resume = None;
            }
        }
        teller.note(state.done);
        if steps.send(Step::Take(event)).await.is_err() {
            // Whoever writes has failed, and says why.
            return Ok(());
        }
    }
    // Without it, what was written is removed.
    let _ = steps.send(Step::Finish).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload_of(names: &[&str]) -> Task {
        let chosen = names.iter().map(|name| ChosenEntry {
            path: PathBuf::from(name),
            name: (*name).to_owned(),
        });
        Task::Upload {
            chosen: chosen.collect(),
            folder: "/workspace".to_owned(),
            taken: Taken::Refuse,
            occupied: Vec::new(),
        }
    }

    #[test]
    fn one_transfer_more_than_there_may_be_is_refused_and_those_of_other_sessions_do_not_count() {
        let transfers = Transfers::default();
        let (one, other) = (SessionId::random(), SessionId::random());
        let task = upload_of(&["a"]);
        let begun: Vec<_> = (0..MOST_AT_ONCE)
            .map(|_| transfers.begin(one, &task).unwrap().0)
            .collect();
        assert!(matches!(
            transfers.begin(one, &task),
            Err(Error::Transfer(_))
        ));
        transfers.begin(other, &task).unwrap();
        transfers.end(&begun[0], None);
        transfers.begin(one, &task).unwrap();
    }

    #[test]
    fn what_failed_may_begin_again_once_and_what_is_under_way_may_not() {
        let transfers = Transfers::default();
        let session = SessionId::random();
        let (id, cancel) = transfers.begin(session, &upload_of(&["a"])).unwrap();
        assert!(transfers.take(session, &id).is_err());
        transfers.end(&id, Some(upload_of(&["a"])));
        assert!(transfers.take(SessionId::random(), &id).is_err());
        assert_eq!(transfers.take(session, &id).unwrap().about().0, "a");
        assert!(transfers.take(session, &id).is_err());
        assert!(!cancel.is_cancelled());
    }

    #[test]
    fn more_failures_than_are_kept_are_forgotten_the_oldest_first() {
        let transfers = Transfers::default();
        let session = SessionId::random();
        let failed: Vec<_> = (0..=MOST_KEPT)
            .map(|_| {
                let (id, _) = transfers.begin(session, &upload_of(&["a"])).unwrap();
                transfers.end(&id, Some(upload_of(&["a"])));
                id
            })
            .collect();
        assert!(transfers.take(session, &failed[0]).is_err());
        transfers.take(session, &failed[1]).unwrap();
        transfers.take(session, &failed[MOST_KEPT]).unwrap();
    }
}
