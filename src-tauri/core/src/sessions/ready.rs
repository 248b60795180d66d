//! The use of a ready session: the gate, its files and its terminals, and what ends its being ready.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::Sessions;
use super::entry::{Activity, Entry, OpenSession, Reach};
use super::idle::{Finding, Idle};
use crate::error::Error;
use crate::files::{
    self, DirContent, Encoding, FileContent, NewContent, NewEntry, NewPlace, WriteIf,
};
use crate::processes::{self, ProcessesEnded, Work};
use crate::session::{SessionId, SessionState};
use crate::terminal::{Opening, Sink, Size, Terminal};

/// How long a connection may be broken before that is told.
const BLINK: Duration = Duration::from_secs(1);
/// How long until it is looked again whether the container runs whose agent fell silent, at first and at most. Docker
/// tells of an end a moment before its list does.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

impl Sessions {
    /// See [`files::list_dir`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn list_dir(&self, id: SessionId, path: &str) -> Result<DirContent, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::list_dir(&open.connection, path))
            .await
    }

    /// See [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file(&self, id: SessionId, path: &str) -> Result<FileContent, Error> {
        self.read_file_as(id, path, None).await
    }

    /// Reads a file as text in a chosen encoding, see [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file_as(
        &self,
        id: SessionId,
        path: &str,
        charset: Option<&str>,
    ) -> Result<FileContent, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::read_file(&open.connection, path, charset))
            .await
    }

    /// Writes a file as UTF-8 or bytes, over anything or over a revision; see [`files::write_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn write_file(
        &self,
        id: SessionId,
        path: &str,
        content: String,
        encoding: Encoding,
        revision: Option<String>,
    ) -> Result<String, Error> {
        let content = NewContent {
            content,
            encoding,
            charset: None,
        };
        let condition = WriteIf::of(revision, false)?;
        self.write_file_if(id, path, content, condition).await
    }

    /// See [`files::write_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn write_file_if(
        &self,
        id: SessionId,
        path: &str,
        content: NewContent,
        condition: WriteIf,
    ) -> Result<String, Error> {
        let open = self.ready(id).await?;
        let write = files::write_file(&open.connection, path, content, condition);
        open.unless_paused(write).await
    }

    /// See [`files::create_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn create_entry(
        &self,
        id: SessionId,
        place: NewPlace,
        kind: NewEntry,
    ) -> Result<String, Error> {
        let open = self.ready(id).await?;
        let create = files::create_entry(&open.connection, place, kind);
        open.unless_paused(create).await
    }

    /// See [`files::move_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn move_entry(
        &self,
        id: SessionId,
        from: &str,
        to: NewPlace,
    ) -> Result<String, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::move_entry(&open.connection, from, to))
            .await
    }

    /// See [`files::copy_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn copy_entry(
        &self,
        id: SessionId,
        from: &str,
        to: NewPlace,
        or_like_it: bool,
    ) -> Result<String, Error> {
        let open = self.ready(id).await?;
        let copy = files::copy_entry(&open.connection, from, to, or_like_it);
        open.unless_paused(copy).await
    }

    /// See [`files::delete_entries`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn delete_entries(&self, id: SessionId, paths: Vec<String>) -> Result<String, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::delete_entries(&open.connection, paths))
            .await
    }

    /// See [`files::restore_entries`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn restore_entries(&self, id: SessionId, trash: String) -> Result<(), Error> {
        let open = self.ready(id).await?;
        open.unless_paused(files::restore_entries(&open.connection, trash))
            .await
    }

    /// Opens a terminal and returns its id.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], and what the engine answers.
    pub async fn open_terminal(
        &self,
        id: SessionId,
        size: Size,
        sink: Sink,
    ) -> Result<String, Error> {
        self.open_terminal_as(id, Opening::default(), size, sink)
            .await
    }

    /// Opens a terminal that begins in a certain way, and returns its id.
    ///
    /// # Errors
    /// Those of [`Self::open_terminal`], and [`Error::Validation`] for a folder that can be none.
    pub async fn open_terminal_as(
        &self,
        id: SessionId,
        opening: Opening,
        size: Size,
        sink: Sink,
    ) -> Result<String, Error> {
        opening.check()?;
        let Opening { replaces, begins } = opening;
        let open = self.ready(id).await?;
        let sink = noticed(&open, sink);
        open.unless_paused(processes::check_room(&open.connection))
            .await?;
        let opening = Terminal::open(&open.connection, size, begins, sink, &self.shared.tracker);
        let terminal = Arc::new(open.unless_paused(opening).await?);
        open.add_terminal(Arc::clone(&terminal), replaces.as_deref());
        Ok(terminal.id().to_owned())
    }

    /// Takes note that a session is to go on, also if nobody uses it.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`].
    pub async fn keep(&self, id: SessionId) -> Result<(), Error> {
        self.connected(id).await.map(drop)
    }

    /// Returns what the session's programs have done so far.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn work(&self, id: SessionId) -> Result<Work, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(processes::work(&open.connection)).await
    }

    /// Ends all processes of the session but the agent's, the shells of its terminals included.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn end_processes(&self, id: SessionId) -> Result<ProcessesEnded, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(processes::end_all(&open.connection))
            .await
    }

    /// Returns an open terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::TerminalNotFound`].
    pub async fn terminal(&self, id: SessionId, terminal_id: &str) -> Result<Arc<Terminal>, Error> {
        let terminal = self.connected(id).await?.terminal(terminal_id);
        terminal.ok_or_else(|| Error::TerminalNotFound(terminal_id.to_owned()))
    }

    /// Shows a terminal in another window, or in the same one after it was reloaded.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::TerminalNotFound`].
    pub async fn attach_terminal(
        &self,
        id: SessionId,
        terminal_id: &str,
        size: Size,
        sink: Sink,
    ) -> Result<(), Error> {
        let open = self.connected(id).await?;
        let terminal = self.terminal(id, terminal_id).await?;
        terminal.attach(noticed(&open, sink));
        match terminal.resize(size).await {
            // One that has ended shows its end, and has no size any more.
            Ok(()) | Err(Error::TerminalNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Names what the shell of a terminal has begun and goes on, each cut short, the job in front first.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn terminal_programs(
        &self,
        id: SessionId,
        terminal_id: &str,
    ) -> Result<Vec<String>, Error> {
        let open = self.ready(id).await?;
        open.unless_paused(processes::of_terminal(&open.connection, terminal_id))
            .await
    }

    /// Hangs up a terminal. Succeeds when it is gone already.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`].
    pub async fn close_terminal(&self, id: SessionId, terminal_id: &str) -> Result<(), Error> {
        self.connected(id).await?.remove_terminal(terminal_id);
        Ok(())
    }

    /// The gate: returns the way into a session, if it is ready.
    pub(super) async fn ready(&self, id: SessionId) -> Result<Arc<OpenSession>, Error> {
        let open = self.connected(id).await?;
        if open.is_paused() {
            return Err(Error::SessionNotReady(SessionState::Paused.as_str()));
        }
        match self.with_entry(id, Entry::state)? {
            away @ SessionState::Away => Err(Error::SessionNotReady(away.as_str())),
            _ => Ok(open),
        }
    }

    /// Returns the way into a session that is ready, or held up: its terminals are there all the same.
    pub(super) async fn connected(&self, id: SessionId) -> Result<Arc<OpenSession>, Error> {
        self.know(id).await?;
        self.with_entry(id, |entry| {
            let open = entry.activity.connected().cloned();
            if let Some(open) = &open {
                open.touch();
            }
            open.ok_or_else(|| Error::SessionNotReady(entry.state().as_str()))
        })?
    }

    /// Says when the connection to a ready session breaks and heals, and stops a session that nobody uses.
    pub(super) fn attend(&self, id: SessionId, open: Arc<OpenSession>) {
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            tokio::select! {
                // Whoever has closed it knows what becomes of the session: nobody looks any more.
                biased;
                () = open.connection.closed() => {}
                () = sessions.follow_connection(id, &open) => {}
                limit = sessions.left_alone(id, &open) => {
                    log::info!("session {id} is stopped: nobody uses it");
                    match sessions.stop(id).await {
                        Ok(()) => sessions.note_stopped_unused(id, limit),
                        Err(error) => log::warn!("failed to stop session {id}: {error}"),
                    }
                }
            }
        });
    }

    async fn follow_connection(&self, id: SessionId, open: &Arc<OpenSession>) {
        let connection = &open.connection;
        loop {
            connection.until(false).await;
            let told = async {
                // What heals at once is not worth a word.
                tokio::time::sleep(BLINK).await;
                self.note_reach(id, open, Reach::Reconnecting);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = connection.until(true) => self.note_reach(id, open, Reach::Connected),
                () = self.look_whether_it_runs(id) => {}
                () = told => {}
            }
        }
    }

    /// Looks again and again whether the container runs whose agent does not answer: an engine that is not
    /// followed says so only when it is asked.
    async fn look_whether_it_runs(&self, id: SessionId) {
        let mut pause = LOOK_AGAIN.0;
        loop {
            if let Ok(Some(engine)) = self.home_of(id).await {
                let sessions = self.clone();
                // A look that finds the session gone ends the wait for it, and still has its network to remove.
                let look = async move { sessions.look_again_at(&engine).await };
                // It does not panic, and if it did, there is another look.
                let _ = self.shared.tracker.spawn(look).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    fn note_reach(&self, id: SessionId, open: &Arc<OpenSession>, reach: Reach) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        // The session may have been stopped and opened anew meanwhile.
        let current = entry.activity.connected();
        if current.is_some_and(|current| Arc::ptr_eq(current, open)) && !open.is_paused() {
            open.set_reach(reach);
        }
    }

    /// Returns when the session has been left alone for as long as the settings allow, and how long that is. That it is
    /// going to be stopped is told before.
    async fn left_alone(&self, id: SessionId, open: &Arc<OpenSession>) -> Duration {
        let mut settings = self.shared.settings.subscribe();
        let mut last_use = open.uses();
        let mut idle = Idle::default();
        loop {
            let limit = self.settings().idle_stop();
            let used = *last_use.borrow_and_update();
            let look = limit.map(|limit| idle.next_look(used, limit, Instant::now()));
            let until_look = async {
                match look {
                    Some(look) => tokio::time::sleep_until(look).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until_look => {}
                changed = settings.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    if idle.used() {
                        self.note_idle_stop(id, open, None);
                    }
                    continue;
                }
                // Before it is said, a use only moves the next look.
                _ = last_use.changed(), if idle.is_said() => {}
            }
            if *last_use.borrow() > used {
                if idle.used() {
                    self.note_idle_stop(id, open, None);
                }
                continue;
            }
            let Some(limit) = limit else { continue };
            let work = processes::work(&open.connection).await.ok();
            let is_said = idle.is_said();
            match idle.look(work, used, limit, Instant::now()) {
                Finding::Works => {
                    open.touch();
                    if is_said {
                        self.note_idle_stop(id, open, None);
                    }
                }
                Finding::Rests => {}
                Finding::StopsAt(at) => self.note_idle_stop(id, open, Some(at)),
                Finding::IsOver => return limit,
            }
        }
    }

    /// Takes note of when a session is going to be stopped because nobody uses it, or that it is not.
    fn note_idle_stop(&self, id: SessionId, open: &Arc<OpenSession>, at: Option<Instant>) {
        let at_ms = at.map(|at| {
            let then = SystemTime::now() + at.saturating_duration_since(Instant::now());
            let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        let current = entry.activity.connected();
        if current.is_some_and(|current| Arc::ptr_eq(current, open)) {
            open.set_idle_stop_ms(at_ms);
        }
    }

    fn note_stopped_unused(&self, id: SessionId, limit: Duration) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get_mut(&id)
            && let Activity::Stopped { .. } = entry.activity
        {
            entry.stopped_unused_minutes = Some(limit.as_secs() / 60);
        }
    }

    /// Ends the connection to a ready session, with its terminals.
    pub(super) fn close(&self, id: SessionId) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        if let Some(open) = entry.activity.connected() {
            open.close();
            entry.activity = Activity::stopped();
        }
    }
}

/// Takes output for use: a session whose build still prints is not idle.
fn noticed(open: &Arc<OpenSession>, sink: Sink) -> Sink {
    let open = Arc::downgrade(open);
    Box::new(move |output| {
        if let Some(open) = open.upgrade() {
            open.touch();
        }
        sink(output);
    })
}
