//! Terminals: a shell on a real TTY in the container, and its output on the way to a window.
//!
//! The agent's daemon owns the TTY and the shell, so bytes arrive exactly as they were written, and a terminal outlives the
//! connection and the app: what is not received is asked for again, and what was typed and did not arrive is typed again.
//! It outlives the window that shows it, too: it keeps its recent output, and a window that comes back gets that first. A window that is slow is waited for: beyond [`WINDOW`] bytes
//! that it has not acknowledged, reading stops, and so in the end does the program that writes. What
//! could hold the window up does not reach it, see [`filter`].

mod filter;
pub mod tabs;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cove_agent::protocol::{Call, Decoder, Failure, Frame, Reply, encode};
pub use cove_agent::terminal::Begins;
use cove_agent::terminal::{End, Input, Output as Wire, PIECE, Tab};
use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::filter::{NEW_CHARACTERS, OutputFilter, Piece};
use crate::connection::{CallFailure, Connection, Stream};
use crate::error::Error;

/// Bytes that may be on the way to a window without its acknowledgement.
const WINDOW: u64 = 2 * 1024 * 1024;
/// Bytes of recent output that a window gets when it comes back.
const KEPT: usize = 1536 * 1024;
/// Bytes that are sent to the window at once.
const BATCH: usize = 64 * 1024;
/// Output beyond this is a flood, and is gathered for [`GATHER`] before it is sent; an echo is not.
const FLOOD: usize = 4 * 1024;
/// How long a flood is gathered.
const GATHER: Duration = Duration::from_millis(4);
/// Keystrokes and sizes that may wait to be written.
const QUEUE: usize = 256;
/// The most bytes of the path of a folder that a shell begins in, encoded: three escapes for each of those that Linux takes.
const LONGEST_FOLDER: usize = 4 * 4_096;
/// The most characters that are shown of how a shell ended.
const LONGEST_MESSAGE: usize = 300;
/// How long a shell may take to start, with the wait for a connection.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Typed bytes that are kept in case they are lost on the way.
const SENT_OF_LATE: usize = 64 * 1024;
/// What sets a terminal back to its beginning, and clears it.
const RESET: &[u8] = b"\x1bc";
/// How long to wait before what an agent refused, or did not answer, is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Takes what a terminal has to say, in order. Must not block.
pub type Sink = Box<dyn Fn(Output) + Send + Sync>;

/// What a terminal has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the screen.
    Bytes(Vec<u8>),
    /// What came so far is slow to draw: the window does so before it takes more.
    Pause,
    /// All that was shown before has come: said once, where a terminal is shown again. What it makes a window answer was
    /// answered then.
    Replayed,
    /// The shell has ended, or the way to it; nothing follows.
    Exit {
        /// Its exit code; `None` when it is not known.
        code: Option<i32>,
        /// What happened, for people.
        message: String,
    },
}

/// A size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// The terminals that there are in a container, from an earlier run of the app.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Their ids, in the order in which they were opened.
    pub(crate) ids: Vec<String>,
    /// The tabs that they were in.
    pub(crate) tabs: Vec<Tab>,
}

/// Returns the terminals that there are in a container. What is no id of ours is left out.
pub(crate) async fn found(connection: &Connection) -> Found {
    match connection.call(Call::Terminals, &[]).await {
        Ok((Reply::Terminals { terminals, tabs }, _)) => {
            let mut ids = terminals;
            ids.retain(|id| Uuid::try_parse(id).is_ok());
            Found { ids, tabs }
        }
        Ok(_) => Found::default(),
        Err(failure) => {
            log::warn!("no word of terminals: {}", failure.into_error());
            Found::default()
        }
    }
}

/// How a terminal is to begin.
#[derive(Debug, Default)]
pub struct Opening {
    /// The id of one that has ended, whose place it takes.
    pub replaces: Option<String>,
    /// Where its shell begins; in the workspace where it is not said.
    pub begins: Option<Begins>,
}

impl Opening {
    /// # Errors
    /// [`Error::Validation`] for a folder that can be none.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(Begins::At { path }) = &self.begins
            && (!path.starts_with('/') || path.contains('\0') || path.len() > LONGEST_FOLDER)
        {
            let message = format!("must be an absolute path of at most {LONGEST_FOLDER} bytes");
            return Err(Error::field("folder", message));
        }
        Ok(())
    }
}

/// A shell in a container. It goes on when this is dropped: only [`Self::hang_up`] ends it.
pub struct Terminal {
    id: String,
    /// Whether the agent has said that the shell has ended.
    has_ended: Arc<AtomicBool>,
    typed: mpsc::Sender<Typed>,
    screen: Arc<Screen>,
    /// Ends what reads and writes, whoever waits for whom.
    closed: CancellationToken,
}

/// What is on its way to a terminal.
enum Typed {
    Bytes(Vec<u8>),
    Size(Size),
}

/// What is between the reader and the window.
struct Screen {
    state: Mutex<ScreenState>,
    /// Wakes the reader when the window has caught up.
    caught_up: Notify,
}

struct ScreenState {
    /// Where it is shown; nowhere at first, when it was there before this process was.
    sink: Option<Sink>,
    filter: OutputFilter,
    /// Characters sent to this window since its last pause that it had not shown before.
    new: u32,
    /// Bytes sent to this window, and how many of them it has acknowledged.
    sent: u64,
    acknowledged: u64,
    recent: VecDeque<u8>,
    /// Whether `recent` has lost its beginning.
    cut: bool,
    /// Whether what comes was written before this process began.
    is_old: bool,
    ended: Option<Output>,
}

impl Terminal {
    /// Starts a shell as the image's user and shows it in a window.
    ///
    /// # Errors
    /// [`Error::AgentUnavailable`], also when there may be a shell all the same.
    pub(crate) async fn open(
        connection: &Arc<Connection>,
        size: Size,
        begins: Option<Begins>,
        sink: Sink,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let id = Uuid::new_v4().to_string();
        let call = Call::OpenTerminal {
            id: id.clone(),
            cols: size.cols,
            rows: size.rows,
            begins,
        };
        let opening = tokio::time::timeout(OPEN_LIMIT, connection.converse(&call)).await;
        let opened = opening.unwrap_or(Err(CallFailure::NoAnswer(OPEN_LIMIT)));
        let (_, _, stream, decoder) = opened.map_err(CallFailure::into_error)?;
        let show = Show { stream, decoder };
        Ok(Self::keep(
            id,
            connection,
            Some(show),
            Some(size),
            Some(sink),
            tracker,
        ))
    }

    /// Shows a terminal that is there, from an earlier run of the app; in no window at first.
    pub(crate) fn found(id: String, connection: &Arc<Connection>, tracker: &TaskTracker) -> Self {
        Self::keep(id, connection, None, None, None, tracker)
    }

    fn keep(
        id: String,
        connection: &Arc<Connection>,
        show: Option<Show>,
        size: Option<Size>,
        sink: Option<Sink>,
        tracker: &TaskTracker,
    ) -> Self {
        let screen = Arc::new(Screen::new(sink));
        let (typed, queue) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        let has_ended = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            id: id.clone(),
            connection: Arc::clone(connection),
            has_ended: Arc::clone(&has_ended),
            closed: closed.clone(),
            reading: Reading {
                screen: Arc::clone(&screen),
                received: 0,
                old_until: 0,
            },
            typing: Typing {
                sent: 0,
                of_late: VecDeque::new(),
                size,
            },
        };
        tracker.spawn(keeper.keep(show, queue));
        Self {
            id,
            has_ended,
            typed,
            screen,
            closed,
        }
    }

    /// Returns the id by which the window knows this terminal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether its shell goes on, as far as is known.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.has_ended.load(Ordering::Relaxed)
    }

    /// Shows the terminal in another window, or in the same one after it was reloaded: recent output
    /// first.
    pub fn attach(&self, sink: Sink) {
        self.screen.attach(sink);
    }

    /// Writes what was typed or pasted.
    ///
    /// # Errors
    /// [`Error::TerminalNotFound`] when the shell has ended.
    pub async fn write(&self, data: &[u8]) -> Result<(), Error> {
        for piece in data.chunks(PIECE) {
            self.send(Typed::Bytes(piece.to_vec())).await?;
        }
        Ok(())
    }

    /// Changes the size.
    ///
    /// # Errors
    /// [`Error::TerminalNotFound`] when the shell has ended.
    pub async fn resize(&self, size: Size) -> Result<(), Error> {
        self.send(Typed::Size(size)).await
    }

    /// Takes note that the window has shown this many bytes since it was attached.
    pub fn acknowledge(&self, bytes: u64) {
        self.screen.acknowledge(bytes);
    }

    async fn send(&self, typed: Typed) -> Result<(), Error> {
        let gone = || Error::TerminalNotFound(self.id.clone());
        if self.has_ended.load(Ordering::Relaxed) {
            return Err(gone());
        }
        let sent = self.closed.run_until_cancelled(self.typed.send(typed));
        match sent.await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(gone()),
        }
    }

    /// Ends the shell, and lets the agent forget the terminal.
    pub fn hang_up(&self) {
        self.closed.cancel();
    }
}

/// A stream on which a terminal is shown.
struct Show {
    stream: Stream,
    decoder: Decoder<Wire>,
}

/// What comes next of a terminal.
enum Heard {
    Bytes(Vec<u8>),
    End(End),
    /// The stream broke.
    Broken,
}

/// What keeps a terminal shown, over one stream after another.
struct Keeper {
    id: String,
    connection: Arc<Connection>,
    has_ended: Arc<AtomicBool>,
    closed: CancellationToken,
    reading: Reading,
    typing: Typing,
}

struct Reading {
    screen: Arc<Screen>,
    /// Bytes of output that have been received, counted from the shell's beginning.
    received: u64,
    /// Up to where the output was written before it was asked for.
    old_until: u64,
}

struct Typing {
    /// Bytes that have been typed and sent, as the agent counts them.
    sent: u64,
    /// The last of them, in case they were lost on the way.
    of_late: VecDeque<u8>,
    size: Option<Size>,
}

impl Keeper {
    async fn keep(mut self, show: Option<Show>, mut queue: mpsc::Receiver<Typed>) {
        let (connection, closed) = (Arc::clone(&self.connection), self.closed.clone());
        let exit = tokio::select! {
            exit = self.until_the_end(show, &mut queue) => exit,
            () = connection.closed() => Output::Exit {
                code: None,
                message: "The session stopped, and its shells with it.".to_owned(),
            },
            () = closed.cancelled() => Output::Exit {
                code: None,
                message: "The terminal was closed.".to_owned(),
            },
        };
        self.has_ended.store(true, Ordering::Relaxed);
        let screen = &self.reading.screen;
        let left_out = screen.lock().filter.left_out();
        if left_out > 0 {
            log::info!("a terminal showed all but {left_out} bytes of its output");
        }
        screen.tell_end(exit);
        // What has ended can still be closed.
        tokio::select! {
            () = connection.closed() => return,
            () = closed.cancelled() => {}
        }
        let call = Call::CloseTerminal {
            id: self.id.clone(),
        };
        let closing = async {
            while let Err(failure) = connection.call(call.clone(), &[]).await {
                if let CallFailure::Refused(error) = failure {
                    log::warn!("failed to close a terminal: {error}");
                    return;
                }
                // It waits for a connection by itself; this is for an agent that does not answer over one.
                tokio::time::sleep(TRY_AGAIN).await;
            }
        };
        tokio::select! {
            () = connection.closed() => {}
            () = closing => {}
        }
    }

    async fn until_the_end(
        &mut self,
        mut show: Option<Show>,
        queue: &mut mpsc::Receiver<Typed>,
    ) -> Output {
        loop {
            let mut current = match show.take() {
                Some(show) => show,
                None => match self.attach().await {
                    Ok(Some(show)) => show,
                    Ok(None) => {
                        tokio::time::sleep(TRY_AGAIN).await;
                        continue;
                    }
                    Err(exit) => return exit,
                },
            };
            if let Some(End { code, message }) = self.show(&mut current, queue).await {
                let shown = message.chars().filter(|character| !character.is_control());
                return Output::Exit {
                    code,
                    message: shown.take(LONGEST_MESSAGE).collect(),
                };
            }
        }
    }

    /// Shows the terminal on another stream, from where the last broke off; `None` when that did not work this time.
    async fn attach(&mut self) -> Result<Option<Show>, Output> {
        let call = Call::AttachTerminal {
            id: self.id.clone(),
            from: self.reading.received,
        };
        let (reply, shown, stream, decoder) = match self.connection.converse(&call).await {
            Ok(answer) => answer,
            Err(CallFailure::Refused(error)) if error.failure == Failure::NotFound => {
                return Err(Output::Exit {
                    code: None,
                    message: "The shell is gone.".to_owned(),
                });
            }
            Err(failure) => {
                log::debug!("a terminal is not shown: {}", failure.into_error());
                return Ok(None);
            }
        };
        let Reply::AttachTerminal {
            from,
            written,
            typed,
        } = reply
        else {
            return Ok(None);
        };
        if !shown.is_empty() {
            // What was there may be anything else.
            self.reading.screen.show_anew(&shown);
        }
        self.reading.received = from;
        self.reading.old_until = written;
        if from >= written {
            self.reading.screen.end_of_old();
        }
        let is_open = self.typing.send_again(&stream, typed).await;
        Ok(is_open.then_some(Show { stream, decoder }))
    }

    /// Shows a terminal until the shell ends, or the stream does.
    async fn show(&mut self, show: &mut Show, queue: &mut mpsc::Receiver<Typed>) -> Option<End> {
        let Show { stream, decoder } = show;
        // Both at once: a program that waits for its output to be read does not read what is typed.
        tokio::select! {
            end = self.reading.until_the_end(stream, decoder) => end,
            () = self.typing.until_the_end(stream, queue) => None,
        }
    }
}

impl Reading {
    async fn until_the_end(&mut self, stream: &Stream, decoder: &mut Decoder<Wire>) -> Option<End> {
        loop {
            self.screen.wait_for_room().await;
            let mut batch = Vec::new();
            let mut taken = take(next(stream, decoder).await, &mut batch);
            let gathered_by = Instant::now() + GATHER;
            while taken.is_continue() && batch.len() < BATCH {
                let next = next(stream, decoder);
                let next = if batch.len() < FLOOD {
                    next.now_or_never()
                } else {
                    tokio::time::timeout_at(gathered_by, next).await.ok()
                };
                match next {
                    Some(next) => taken = take(next, &mut batch),
                    None => break,
                }
            }
            // Only now: a stream that breaks meanwhile is asked again for what was not shown.
            self.received = self.received.saturating_add(batch.len() as u64);
            if !batch.is_empty() {
                self.screen.show(&batch);
            }
            if self.received >= self.old_until {
                self.screen.end_of_old();
            }
            if let ControlFlow::Break(end) = taken {
                return end;
            }
        }
    }
}

/// Takes what has come; says how it ends, if it does.
fn take(next: Heard, batch: &mut Vec<u8>) -> ControlFlow<Option<End>> {
    match next {
        Heard::Bytes(bytes) => {
            batch.extend(bytes);
            ControlFlow::Continue(())
        }
        Heard::End(end) => ControlFlow::Break(Some(end)),
        Heard::Broken => ControlFlow::Break(None),
    }
}

impl Typing {
    /// Sends what is typed until the stream is over.
    async fn until_the_end(&mut self, stream: &Stream, queue: &mut mpsc::Receiver<Typed>) {
        while let Some(typed) = queue.recv().await {
            let is_open = match typed {
                Typed::Bytes(bytes) => {
                    self.sent = self.sent.saturating_add(bytes.len() as u64);
                    self.of_late.extend(&bytes);
                    let excess = self.of_late.len().saturating_sub(SENT_OF_LATE);
                    self.of_late.drain(..excess);
                    send(stream, &Input::Bytes, &bytes).await
                }
                Typed::Size(size) => {
                    self.size = Some(size);
                    send_size(stream, size).await
                }
            };
            if !is_open {
                return;
            }
        }
        // Nobody types any more, and the shell goes on.
        std::future::pending::<()>().await;
    }

    /// Sends again what the agent has not heard of, which has taken in so many bytes; `false` when the stream is over.
    async fn send_again(&mut self, stream: &Stream, arrived: u64) -> bool {
        let lost = usize::try_from(self.sent.saturating_sub(arrived)).unwrap_or(usize::MAX);
        // What has arrived is never typed again, whatever an agent says later.
        let arrived_of_late = self.of_late.len().saturating_sub(lost);
        self.of_late.drain(..arrived_of_late);
        let again: Vec<u8> = self.of_late.iter().copied().collect();
        self.sent = arrived.saturating_add(again.len() as u64);
        for piece in again.chunks(PIECE) {
            if !send(stream, &Input::Bytes, piece).await {
                return false;
            }
        }
        match self.size {
            Some(size) => send_size(stream, size).await,
            None => true,
        }
    }
}

/// Waits for what comes next of a terminal. Nothing is lost when it is dropped.
async fn next(stream: &Stream, decoder: &mut Decoder<Wire>) -> Heard {
    loop {
        match decoder.next_frame() {
            Ok(Some(Frame { header, body })) => match header {
                Wire::Bytes => return Heard::Bytes(body),
                Wire::End(end) => return Heard::End(end),
            },
            Ok(None) => {}
            Err(error) => {
                log::error!("what a terminal says cannot be read: {error}");
                return Heard::Broken;
            }
        }
        match stream.next().await {
            Some(bytes) => decoder.push(&bytes),
            None => return Heard::Broken,
        }
    }
}

async fn send_size(stream: &Stream, Size { cols, rows }: Size) -> bool {
    send(stream, &Input::Resize { cols, rows }, &[]).await
}

/// Sends something to a terminal; `false` when the stream is over.
async fn send(stream: &Stream, input: &Input, body: &[u8]) -> bool {
    match encode(input, body) {
        Ok(frame) => stream.send(&frame).await,
        Err(_) => false,
    }
}

impl Screen {
    fn new(sink: Option<Sink>) -> Self {
        Self {
            state: Mutex::new(ScreenState {
                is_old: sink.is_none(),
                sink,
                filter: OutputFilter::default(),
                new: 0,
                sent: 0,
                acknowledged: 0,
                recent: VecDeque::new(),
                cut: false,
                ended: None,
            }),
            caught_up: Notify::new(),
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let caught_up = self.caught_up.notified();
            {
                let state = self.lock();
                if state.sent.saturating_sub(state.acknowledged) < WINDOW {
                    return;
                }
            }
            caught_up.await;
        }
    }

    fn show(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for piece in state.filter.pass(bytes) {
            state.recent.extend(&piece.bytes);
            let excess = state.recent.len().saturating_sub(KEPT);
            if excess > 0 {
                state.recent.drain(..excess);
                state.cut = true;
            }
            state.send(piece);
        }
    }

    /// Shows a screen as it is, in the place of all that was shown.
    fn show_anew(&self, bytes: &[u8]) {
        {
            let mut state = self.lock();
            state.recent.clear();
            state.cut = false;
        }
        self.show(RESET);
        self.show(bytes);
    }

    /// Takes note that what comes from now on is new.
    fn end_of_old(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_old, false) {
            state.tell(Output::Replayed);
        }
    }

    fn tell_end(&self, exit: Output) {
        self.end_of_old();
        let mut state = self.lock();
        state.ended = Some(exit.clone());
        state.tell(exit);
    }

    fn attach(&self, sink: Sink) {
        let mut state = self.lock();
        state.sink = Some(sink);
        state.filter.forget_shown();
        state.new = 0;
        state.sent = 0;
        state.acknowledged = 0;
        // It has passed before, but not in one piece.
        for piece in OutputFilter::default().pass(&state.replay()) {
            state.send(piece);
        }
        if !state.is_old {
            state.tell(Output::Replayed);
        }
        if let Some(exit) = state.ended.clone() {
            state.tell(exit);
        }
        drop(state);
        self.caught_up.notify_one();
    }

    fn acknowledge(&self, bytes: u64) {
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(bytes.min(state.sent));
        drop(state);
        self.caught_up.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ScreenState> {
        self.state.lock()
    }
}

impl ScreenState {
    fn send(&mut self, Piece { bytes, new }: Piece) {
        if self.sink.is_none() {
            return;
        }
        if !bytes.is_empty() {
            self.sent += bytes.len() as u64;
            self.tell(Output::Bytes(bytes));
        }
        self.new += new;
        if self.new >= NEW_CHARACTERS {
            self.new = 0;
            self.tell(Output::Pause);
        }
    }

    fn tell(&self, output: Output) {
        if let Some(sink) = &self.sink {
            sink(output);
        }
    }

    /// Returns the recent output. If its beginning is lost, it starts at a line: the middle of a
    /// character or an escape sequence would show as rubbish.
    fn replay(&self) -> Vec<u8> {
        let line = self
            .recent
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.recent
            .iter()
            .skip(if self.cut { line } else { 0 })
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Arc<Mutex<Vec<Output>>>;

    fn sink() -> (Sink, Seen) {
        let seen = Seen::default();
        let heard = Arc::clone(&seen);
        (Box::new(move |output| heard.lock().push(output)), seen)
    }

    fn bytes_of(seen: &Seen) -> Vec<u8> {
        let seen = seen.lock();
        seen.iter()
            .flat_map(|output| match output {
                Output::Bytes(bytes) => bytes.clone(),
                Output::Pause | Output::Replayed | Output::Exit { .. } => Vec::new(),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn kept_output_is_bounded_and_starts_at_a_line() {
        let (sink_one, seen_one) = sink();
        let screen = Arc::new(Screen::new(Some(sink_one)));
        for _ in 0..300 {
            screen.show(&[&[b'x'; 9_999][..], b"\n"].concat());
        }
        let (sink_two, seen) = sink();
        screen.attach(sink_two);
        let replayed = bytes_of(&seen);
        assert!(replayed.len() <= KEPT);
        assert_eq!(replayed.len() % 10_000, 0, "whole lines only");
        assert_eq!(bytes_of(&seen_one).len(), 3_000_000);
    }

    #[test]
    fn what_is_slow_to_draw_comes_with_pauses_and_what_was_shown_before_with_none() {
        let (sink, seen) = sink();
        let screen = Screen::new(Some(sink));
        let pauses = |text: &str| {
            seen.lock().clear();
            screen.show(text.as_bytes());
            let seen = seen.lock();
            seen.iter()
                .filter(|output| **output == Output::Pause)
                .count()
        };
        let characters: String = ('\u{4e00}'..'\u{51e8}').collect();
        assert_eq!(pauses(&characters), 20);
        assert_eq!(pauses(&characters), 0);
        assert_eq!(pauses(&"plain text, \x1b[31mred\r\n".repeat(100_000)), 0);
    }

    #[test]
    fn a_window_that_comes_back_gets_the_recent_output_in_small_pieces() {
        let (first, _) = sink();
        let screen = Screen::new(Some(first));
        screen.show("\x1b[40S".repeat(1_000).as_bytes());
        let (second, seen) = sink();
        screen.attach(second);
        assert!(seen.lock().len() > 30, "{}", seen.lock().len());
        assert_eq!(bytes_of(&seen).len(), 5_000);
        assert_eq!(screen.lock().sent, 5_000);
    }
}
