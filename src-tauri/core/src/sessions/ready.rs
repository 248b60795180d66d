//! The use of a ready session: the gate to it, its files and its terminals.

use std::sync::Arc;

use super::Sessions;
use super::entry::{Entry, OpenSession};
use crate::error::Error;
use crate::files::{
    self, DirContent, Encoding, FileContent, NewContent, NewEntry, NewPlace, WriteIf,
};
use crate::processes::{self, ProcessesEnded, Work};
use crate::session::{SessionId, SessionState};
use crate::terminal::{Opening, Sink, Size, Terminal};

/// A session whose container runs, ready or held up: its terminals are there either way. The connection to its agent may
/// break and be made again meanwhile. When the session is stopped, all that is asked of this fails.
pub struct ConnectedSession {
    pub(super) sessions: Sessions,
    pub(super) id: SessionId,
    pub(super) open: Arc<OpenSession>,
}

/// A ready session. When it is held up meanwhile, what is asked of it fails with [`Error::SessionNotReady`] at once.
pub struct ReadySession(pub(super) ConnectedSession);

impl Sessions {
    /// The gate: returns a session if it is ready. It counts as used.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotReady`]; what the engine answers when nothing is known of the session.
    pub async fn ready(&self, id: SessionId) -> Result<ReadySession, Error> {
        let session = self.connected(id).await?;
        if session.open.is_paused() {
            return Err(Error::SessionNotReady(SessionState::Paused.as_str()));
        }
        match self.with_entry(id, Entry::state)? {
            away @ SessionState::Away => Err(Error::SessionNotReady(away.as_str())),
            _ => Ok(ReadySession(session)),
        }
    }

    /// Returns a session that is ready, or held up. It counts as used, so that it goes on although nobody else uses it.
    ///
    /// # Errors
    /// Those of [`Self::ready`].
    pub async fn connected(&self, id: SessionId) -> Result<ConnectedSession, Error> {
        self.know(id).await?;
        let open = self.with_entry(id, |entry| {
            let open = entry.activity.connected().cloned();
            open.ok_or_else(|| Error::SessionNotReady(entry.state().as_str()))
        })??;
        open.touch();
        Ok(ConnectedSession {
            sessions: self.clone(),
            id,
            open,
        })
    }
}

impl ConnectedSession {
    /// Returns an open terminal.
    ///
    /// # Errors
    /// [`Error::TerminalNotFound`].
    pub fn terminal(&self, terminal_id: &str) -> Result<Arc<Terminal>, Error> {
        let terminal = self.open.terminal(terminal_id);
        terminal.ok_or_else(|| Error::TerminalNotFound(terminal_id.to_owned()))
    }

    /// Shows a terminal in another window, or in the same one after it was reloaded.
    ///
    /// # Errors
    /// [`Error::TerminalNotFound`].
    pub async fn attach_terminal(
        &self,
        terminal_id: &str,
        size: Size,
        sink: Sink,
    ) -> Result<(), Error> {
        let terminal = self.terminal(terminal_id)?;
        terminal.attach(noticed(&self.open, sink));
        match terminal.resize(size).await {
            // One that has ended shows its end, and has no size any more.
            Ok(()) | Err(Error::TerminalNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hangs up a terminal, if it is still there.
    pub fn close_terminal(&self, terminal_id: &str) {
        self.open.remove_terminal(terminal_id);
    }
}

impl ReadySession {
    /// See [`files::list_dir`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn list_dir(&self, path: &str) -> Result<DirContent, Error> {
        let open = &self.0.open;
        open.unless_paused(files::list_dir(&open.connection, path))
            .await
    }

    /// See [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file(&self, path: &str) -> Result<FileContent, Error> {
        self.read_file_as(path, None).await
    }

    /// Reads a file as text in a chosen encoding, see [`files::read_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn read_file_as(
        &self,
        path: &str,
        charset: Option<&str>,
    ) -> Result<FileContent, Error> {
        let open = &self.0.open;
        open.unless_paused(files::read_file(&open.connection, path, charset))
            .await
    }

    /// Writes a file as UTF-8 or bytes, over anything or over a revision; see [`files::write_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn write_file(
        &self,
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
        self.write_file_if(path, content, condition).await
    }

    /// See [`files::write_file`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn write_file_if(
        &self,
        path: &str,
        content: NewContent,
        condition: WriteIf,
    ) -> Result<String, Error> {
        let open = &self.0.open;
        let write = files::write_file(&open.connection, path, content, condition);
        open.unless_paused(write).await
    }

    /// See [`files::create_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn create_entry(&self, place: NewPlace, kind: NewEntry) -> Result<String, Error> {
        let open = &self.0.open;
        let create = files::create_entry(&open.connection, place, kind);
        open.unless_paused(create).await
    }

    /// See [`files::move_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn move_entry(&self, from: &str, to: NewPlace) -> Result<String, Error> {
        let open = &self.0.open;
        open.unless_paused(files::move_entry(&open.connection, from, to))
            .await
    }

    /// See [`files::copy_entry`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn copy_entry(
        &self,
        from: &str,
        to: NewPlace,
        or_like_it: bool,
    ) -> Result<String, Error> {
        let open = &self.0.open;
        let copy = files::copy_entry(&open.connection, from, to, or_like_it);
        open.unless_paused(copy).await
    }

    /// See [`files::delete_entries`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn delete_entries(&self, paths: Vec<String>) -> Result<String, Error> {
        let open = &self.0.open;
        open.unless_paused(files::delete_entries(&open.connection, paths))
            .await
    }

    /// See [`files::restore_entries`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn restore_entries(&self, trash: String) -> Result<(), Error> {
        let open = &self.0.open;
        open.unless_paused(files::restore_entries(&open.connection, trash))
            .await
    }

    /// Opens a terminal and returns its id.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], and what the engine answers.
    pub async fn open_terminal(&self, size: Size, sink: Sink) -> Result<String, Error> {
        self.open_terminal_as(Opening::default(), size, sink).await
    }

    /// Opens a terminal that begins in a certain way, and returns its id.
    ///
    /// # Errors
    /// Those of [`Self::open_terminal`], and [`Error::Validation`] for a folder that can be none.
    pub async fn open_terminal_as(
        &self,
        opening: Opening,
        size: Size,
        sink: Sink,
    ) -> Result<String, Error> {
        opening.check()?;
        let Opening { replaces, begins } = opening;
        let open = &self.0.open;
        let sink = noticed(open, sink);
        open.unless_paused(processes::check_room(&open.connection))
            .await?;
        let tracker = &self.0.sessions.shared.tracker;
        let opening = Terminal::open(&open.connection, size, begins, sink, tracker);
        let terminal = Arc::new(open.unless_paused(opening).await?);
        open.add_terminal(Arc::clone(&terminal), replaces.as_deref());
        Ok(terminal.id().to_owned())
    }

    /// Returns what the session's programs have done so far.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn work(&self) -> Result<Work, Error> {
        let open = &self.0.open;
        open.unless_paused(processes::work(&open.connection)).await
    }

    /// Ends all processes of the session but the agent's, the shells of its terminals included.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn end_processes(&self) -> Result<ProcessesEnded, Error> {
        let open = &self.0.open;
        open.unless_paused(processes::end_all(&open.connection))
            .await
    }

    /// Names what the shell of a terminal has begun and goes on, each cut short, the job in front first.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], [`Error::AgentUnavailable`].
    pub async fn terminal_programs(&self, terminal_id: &str) -> Result<Vec<String>, Error> {
        let open = &self.0.open;
        open.unless_paused(processes::of_terminal(&open.connection, terminal_id))
            .await
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
