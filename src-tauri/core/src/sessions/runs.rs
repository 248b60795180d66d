//! What is under way: runs that make sessions ready, from their start to their one terminal event. What
//! a run does is `provision.rs`.

use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::entry::{Activity, Entry, OpenSession};
use super::registry::lasting;
use super::{Sessions, Shared};
use crate::engine::{Engine, in_time};
use crate::engines::KnownEngine;
use crate::error::Error;
use crate::estimate::{RunKind, RunSample};
use crate::event::{CancelledEvent, FailedEvent, ProgressEvent, ReadyEvent, SessionEvent};
use crate::progress::{Phase, Progress};
use crate::provision::{Answered, Monitor, Outcome, Run, Supervision, UndoAttempt, drop_replaced};
use crate::session::{CreateSession, SessionId, SessionState, SessionStatus, Source};
use crate::timing::{RunOutcome, TimingReport};

/// What would be lost if the app ended now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Runs that make sessions ready.
    pub runs: usize,
    /// Exports of sessions' files.
    pub exports: usize,
    /// Uploads and downloads.
    pub transfers: usize,
}

impl UnderWay {
    /// Returns whether there is nothing to lose.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.runs == 0 && self.exports == 0 && self.transfers == 0
    }
}

impl Sessions {
    /// Checks a request and starts provisioning. Returns before the engine is asked anything.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn create(&self, request: &Value) -> Result<SessionId, Error> {
        self.create_from(request, None)
    }

    /// Does what [`Self::create`] does, with files from somewhere.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn create_from(&self, request: &Value, source: Option<Source>) -> Result<SessionId, Error> {
        Ok(self.begin(CreateSession::from_json(request)?, source, None))
    }

    /// Begins a new session, on this engine or on the one that new sessions are made on.
    pub(super) fn begin(
        &self,
        request: CreateSession,
        source: Option<Source>,
        engine: Option<Arc<KnownEngine>>,
    ) -> SessionId {
        let id = SessionId::random();
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let created = now.format(&Rfc3339).unwrap_or_default();
        let mut entry = Entry::new(engine, request, created, Activity::stopped());
        entry.source = source;
        entry.is_new = true;
        let mut entries = self.shared.entries();
        let entry = entries.entry(id).or_insert(entry);
        self.start_run(id, entry, false);
        id
    }

    /// Ends the run that is under way, and waits until what it made is gone. Does nothing to a
    /// session that has no run.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn cancel(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        self.cancel_run(id).await?;
        self.with_entry(id, |entry| entry.status(id))
    }

    /// Makes a session ready: opens a stopped one, retries a failed or cancelled one, resumes an
    /// interrupted one, lets the programs of a paused one go on. Does nothing to one that is ready or on
    /// the way.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::EngineAway`] for one that is away; what the engine answers about a
    /// paused one.
    pub async fn open(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        self.unless_away(id).await?;
        self.let_go_on(id).await?;
        let mut entries = self.shared.entries();
        let entry = lasting(&mut entries, id)?;
        match entry.activity {
            Activity::Provisioning { .. } | Activity::Ready { .. } => {}
            Activity::Stopped { .. }
            | Activity::Interrupted
            | Activity::Failed { .. }
            | Activity::Cancelled { .. } => self.start_run(id, entry, false),
        }
        Ok(entry.status(id))
    }

    /// Lets the programs of a session go on that was paused while it was ready. Does nothing to others.
    async fn let_go_on(&self, id: SessionId) -> Result<(), Error> {
        let paused = |entry: &Entry| {
            let open = entry.activity.connected();
            let open = open.filter(|open| open.is_paused()).cloned();
            open.map(|open| (open, Arc::clone(&entry.turn)))
        };
        let Some((open, turn)) = self.with_entry(id, paused)? else {
            return Ok(());
        };
        let _turn = turn.lock().await;
        let Some(home) = self.home_of(id).await? else {
            return Ok(());
        };
        let engine = self.shared.engines.reach(&home).await?;
        in_time(
            "let the session go on",
            engine.unpause_container(&open.container),
        )
        .await?;
        self.reconcile(&home, &*engine).await
    }

    /// Looks for the engine of a session that is away. One that is back says first what became of the session: its
    /// container may have ended with the engine.
    ///
    /// # Errors
    /// [`Error::EngineAway`] when it is not back, and what it answers.
    pub(super) async fn unless_away(&self, id: SessionId) -> Result<(), Error> {
        let is_away = |entry: &Entry| entry.state() == SessionState::Away;
        if !self.with_entry(id, is_away)? {
            return Ok(());
        }
        let Some(home) = self.home_of(id).await? else {
            return Ok(());
        };
        let engine = self.shared.engines.reach(&home).await?;
        self.reconcile(&home, &*engine).await
    }

    /// Returns what is under way.
    #[must_use]
    pub fn under_way(&self) -> UnderWay {
        let entries = self.shared.entries();
        let runs = |entry: &&Entry| matches!(entry.activity, Activity::Provisioning { .. });
        UnderWay {
            runs: entries.values().filter(runs).count(),
            exports: entries
                .values()
                .filter(|entry| entry.export.is_some())
                .count(),
            transfers: self.shared.transfers.under_way(),
        }
    }

    /// Starts a run. What earlier runs may have left is this one's from now on.
    pub(super) fn start_run(&self, id: SessionId, entry: &mut Entry, rebuild: bool) {
        let request = entry.request.clone();
        self.start_run_of(id, entry, request, rebuild);
    }

    pub(super) fn start_run_of(
        &self,
        id: SessionId,
        entry: &mut Entry,
        request: CreateSession,
        rebuild: bool,
    ) {
        let before = entry.activity.connected().cloned();
        if let Some(open) = &before {
            if rebuild {
                open.connection.close();
            } else {
                open.close();
            }
        }
        entry.stopped_unused_minutes = None;
        entry.out_of_memory = None;
        let monitor = Arc::new(Monitor::new());
        let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
        entry.activity = Activity::Provisioning {
            monitor: Arc::clone(&monitor),
            cancel: cancel.clone(),
            ended: ended.clone(),
        };
        let tell = {
            let shared = Arc::clone(&self.shared);
            Box::new(move |phase, progress, message| shared.tell(id, phase, progress, message))
        };
        let ending = {
            let shared = Arc::clone(&self.shared);
            Box::new(move |hurry| shared.note_ending(id, hurry))
        };
        let settings = self.settings();
        let supervision = Supervision {
            monitor: Arc::clone(&monitor),
            cancel,
            ending,
            limit: settings.time_limit(),
            tell,
        };
        let history = self.shared.history().clone();
        let (created, source) = (entry.created.clone(), entry.source.clone());
        let (sessions, turn) = (self.clone(), Arc::clone(&entry.turn));
        self.shared.tracker.spawn(async move {
            // Whoever waits for the end of the run hears of it even if it ends badly.
            let ended = ended.drop_guard();
            let nothing_done = |error| {
                let undone = Vec::new();
                let outcome = match error {
                    Error::Cancelled => Outcome::Cancelled { undone },
                    error => Outcome::Failed { error, undone },
                };
                sessions.settle(id, &monitor, outcome);
            };
            let turn = match supervision.await_turn(&turn).await {
                Ok(turn) => turn,
                Err(error) => return nothing_done(error),
            };
            // The session may have been deleted while this run waited for its turn.
            let Ok(inherited) = sessions.with_entry(id, |entry| entry.leftovers.clone()) else {
                return;
            };
            let has_replaced = sessions.with_entry(id, |entry| entry.on_engine.replaced);
            let has_replaced = has_replaced.unwrap_or_default();
            supervision.enter(Phase::Starting, "Looking for a container engine");
            let pinned = supervision.supervise(sessions.pin(id)).await;
            let engine = match pinned {
                Ok(pinned) => pinned,
                Err(error) => return nothing_done(error),
            };
            let shared = &sessions.shared;
            let run = Run {
                engine: Arc::clone(&engine),
                assets: Arc::clone(&shared.assets),
                pulls: Arc::clone(&shared.pulls),
                networks: Arc::clone(&shared.networks),
                journal: Arc::clone(&shared.journal),
                tracker: shared.tracker.clone(),
                settings,
                history,
                id,
                request: request.clone(),
                created,
                source,
                rebuild,
                inherited,
                supervision,
            };
            let (outcome, pending) = run.drive().await;
            // What ran in them was asked to end, and had its time for that.
            if let Some(open) = before {
                open.close();
            }
            let is_ready = matches!(outcome, Outcome::Ready(_));
            if is_ready {
                sessions.take_request(id, request);
            }
            sessions.settle(id, &monitor, outcome);
            drop(ended);
            // Also what an earlier rebuild could not remove.
            if is_ready && (rebuild || has_replaced) {
                drop_replaced(&*engine, id).await;
            }
            if let Some(pending) = pending {
                sessions.note_undo_attempt(id, pending.finish().await);
            }
            drop(turn);
            sessions.look_after_leftovers(id);
        });
    }

    /// Returns the way to the engine that a session is on. One of which nothing is on any engine is from now on
    /// on the one that new sessions are made on.
    async fn pin(&self, id: SessionId) -> Result<Arc<dyn Engine>, Error> {
        let engines = &self.shared.engines;
        if let Some(home) = self.home_of(id).await? {
            return engines.reach(&home).await;
        }
        let chosen = engines.for_new().await?;
        let engine = engines.reach(&chosen).await?;
        if let Some(entry) = self.shared.entries().get_mut(&id) {
            entry.engine = Some(chosen);
        }
        Ok(engine)
    }

    /// Ends a run: its outcome becomes what the session is, and its one terminal event is told.
    fn settle(&self, id: SessionId, monitor: &Monitor, outcome: Outcome) {
        let ended = match &outcome {
            Outcome::Ready(_) => {
                monitor.finish();
                RunOutcome::Ready
            }
            Outcome::Failed { .. } => RunOutcome::Failed,
            Outcome::Cancelled { .. } => RunOutcome::Cancelled,
        };
        let (phase, progress, _message) = monitor.snapshot();
        let timing = monitor.report(ended);
        let sample = monitor.sample();
        monitor.leave_pull();
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        entry.timing = Some(timing.clone());
        self.learn(id, &timing, sample);
        let session_id = id;
        match outcome {
            Outcome::Ready(Answered {
                connection,
                terminals,
                container,
            }) => {
                let tracker = &self.shared.tracker;
                let open = OpenSession::new(connection, container, terminals, tracker);
                let open = Arc::new(open);
                self.attend(id, Arc::clone(&open));
                self.attend_ports(id, Arc::clone(&open));
                entry.activity = Activity::Ready {
                    open,
                    progress: progress.clone(),
                };
                entries.tell_session(id, |session| {
                    SessionEvent::Ready(Box::new(ReadyEvent {
                        session_id,
                        seq: session.seq,
                        session,
                        progress,
                        timing,
                    }))
                });
            }
            Outcome::Failed { error, undone } => {
                log::warn!("session {id} failed in {phase:?}: {error}");
                let error = error.report();
                entry.activity = Activity::Failed {
                    phase,
                    progress,
                    error: error.clone(),
                    undone: undone.clone(),
                };
                entries.tell_session(id, |session| {
                    SessionEvent::Failed(Box::new(FailedEvent {
                        session_id,
                        seq: session.seq,
                        phase,
                        session,
                        error,
                        undone,
                        timing,
                    }))
                });
            }
            Outcome::Cancelled { undone } => {
                entry.activity = Activity::Cancelled {
                    phase,
                    progress,
                    undone: undone.clone(),
                };
                entries.tell_session(id, |session| {
                    SessionEvent::Cancelled(Box::new(CancelledEvent {
                        session_id,
                        seq: session.seq,
                        session,
                        phase,
                        undone,
                        timing,
                    }))
                });
            }
        }
    }

    /// Keeps the sample of a run, if it was one that is counted, and where its time went.
    fn learn(&self, id: SessionId, timing: &TimingReport, sample: Option<(RunKind, RunSample)>) {
        let mut history = self.shared.history();
        if let Some((kind, sample)) = sample.filter(|_| timing.outcome == RunOutcome::Ready) {
            history.learn(&kind, sample);
        }
        history.keep_report(id.to_string(), timing.clone());
        self.shared.keep.history(&history);
    }

    /// The run is the session now: what it was asked to make is what there is.
    fn take_request(&self, id: SessionId, request: CreateSession) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get_mut(&id) {
            entry.request = request;
            entry.source = None;
            entry.is_new = false;
            entry.leftovers.clear();
        }
    }

    /// Notes what came of undos that were attempted after the end of their run.
    pub(super) fn note_undo_attempt(&self, id: SessionId, attempted: UndoAttempt) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        entry.leftovers = attempted.left;
        if let Activity::Failed { .. } | Activity::Cancelled { .. } = entry.activity
            && entry.is_new
            && entry.leftovers.is_empty()
        {
            // Nothing of it is on its engine any more: the user may choose another before the next run.
            entry.engine = None;
        }
        if let Activity::Failed { undone, .. } | Activity::Cancelled { undone, .. } =
            &mut entry.activity
        {
            for (undo, done) in &attempted.done {
                let what = undo.to_string();
                for told in undone.iter_mut().filter(|told| told.what == what) {
                    *told = done.clone();
                }
            }
        }
    }

    pub(super) async fn cancel_run(&self, id: SessionId) -> Result<(), Error> {
        let ended = self.with_entry(id, |entry| {
            let Activity::Provisioning { cancel, ended, .. } = &entry.activity else {
                return None;
            };
            cancel.cancel();
            Some(ended.clone())
        })?;
        if let Some(ended) = ended {
            ended.cancelled().await;
        }
        Ok(())
    }
}

impl Shared {
    /// Takes note that a session's programs are being ended, and of what ends the wait for them; `None` when that is over.
    pub(super) fn note_ending(&self, id: SessionId, hurry: Option<CancellationToken>) {
        if let Some(entry) = self.entries().get_mut(&id) {
            entry.ending = hurry;
        }
    }

    /// Tells progress.
    fn tell(&self, session_id: SessionId, phase: Phase, progress: Progress, message: String) {
        self.entries().tell(session_id, |seq| {
            SessionEvent::Progress(ProgressEvent {
                session_id,
                seq,
                phase,
                progress,
                message,
            })
        });
    }
}
