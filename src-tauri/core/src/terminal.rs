//! Terminals: a shell on a real TTY in the container, and its output on the way to a window.
//!
//! The agent owns the TTY (see `cove_agent::terminal`), so bytes arrive exactly as they were
//! written. A terminal outlives the window that shows it: it keeps its recent output, and a window
//! that comes back gets that first. A window that is slow is waited for: beyond [`WINDOW`] bytes
//! that it has not acknowledged, reading stops, and so in the end does the program that writes. What
//! could hold the window up does not reach it, see [`filter`].

mod filter;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cove_agent::protocol::encode;
use cove_agent::terminal::{End, Input};
use cove_agent::{AGENT_PATH, WORKSPACE};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::filter::{NEW_CHARACTERS, OutputFilter, Piece};
use crate::engine::{Engine, Exec, ExecOutput, ExecSpec};
use crate::error::Error;

/// Bytes that may be on the way to a window without its acknowledgement.
const WINDOW: u64 = 2 * 1024 * 1024;
/// Bytes of recent output that a window gets when it comes back.
const KEPT: usize = 256 * 1024;
/// Bytes that are sent to the window at once.
const BATCH: usize = 64 * 1024;
/// Output beyond this is a flood, and is gathered for [`GATHER`] before it is sent; an echo is not.
const FLOOD: usize = 4 * 1024;
/// How long a flood is gathered.
const GATHER: Duration = Duration::from_millis(4);
/// Keystrokes and sizes that may wait to be written.
const QUEUE: usize = 256;
/// Bytes of the agent's last word that are kept. Others in the container can write to the same place.
const LAST_WORD: usize = 4 * 1024;
/// The most characters of the agent's last word that are shown.
const LONGEST_MESSAGE: usize = 300;
/// How long the engine may take to start a shell.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How long what was typed before a terminal was closed may take on its way to the shell.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Takes what a terminal has to say, in order. Must not block.
pub type Sink = Box<dyn Fn(Output) + Send + Sync>;

/// What a terminal has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the screen.
    Bytes(Vec<u8>),
    /// What came so far is slow to draw: the window does so before it takes more.
    Pause,
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

/// A shell in a container. Closing it or dropping the last handle hangs it up.
pub struct Terminal {
    id: String,
    input: mpsc::Sender<Vec<u8>>,
    screen: Arc<Screen>,
    /// Ends what reads and writes, whoever waits for whom.
    closed: CancellationToken,
}

/// What is between the reader and the window.
struct Screen {
    state: Mutex<ScreenState>,
    /// Wakes the reader when the window has caught up.
    caught_up: Notify,
}

struct ScreenState {
    sink: Sink,
    filter: OutputFilter,
    /// Characters sent to this window since its last pause that it had not shown before.
    new: u32,
    /// Bytes sent to this window, and how many of them it has acknowledged.
    sent: u64,
    acknowledged: u64,
    recent: VecDeque<u8>,
    /// Whether `recent` has lost its beginning.
    cut: bool,
    ended: Option<Output>,
}

impl Terminal {
    /// Starts a shell as the image's user and shows it in a window.
    ///
    /// # Errors
    /// What [`Engine::exec`] fails with.
    pub async fn open(
        engine: &dyn Engine,
        container: &str,
        user: &str,
        size: Size,
        sink: Sink,
        tracker: &TaskTracker,
    ) -> Result<Self, Error> {
        let spec = ExecSpec {
            command: [
                AGENT_PATH,
                "terminal",
                "--cols",
                &size.cols.to_string(),
                "--rows",
                &size.rows.to_string(),
            ]
            .map(str::to_owned)
            .to_vec(),
            user: user.to_owned(),
            directory: WORKSPACE.to_owned(),
            environment: Vec::new(),
        };
        let starting = tokio::time::timeout(OPEN_LIMIT, engine.exec(container, &spec));
        let Exec { mut input, output } = starting.await.unwrap_or_else(|_elapsed| {
            Err(Error::EngineSilent {
                operation: "start a shell".to_owned(),
                limit: OPEN_LIMIT,
            })
        })?;
        let screen = Arc::new(Screen::new(sink));
        let (sender, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let closed = CancellationToken::new();
        // With the end of the input the agent hangs up.
        let until = closed.clone();
        tracker.spawn(async move {
            let writing = async {
                while let Some(frame) = queue.recv().await {
                    if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
                        return;
                    }
                }
                // The agent takes a lost connection for the same.
                let _ = input.shutdown().await;
            };
            let overdue = async {
                until.cancelled().await;
                tokio::time::sleep(CLOSE_LIMIT).await;
            };
            tokio::select! {
                () = writing => {}
                () = overdue => {}
            }
        });
        let (reading, until) = (Arc::clone(&screen).read(output), closed.clone());
        // A window that never catches up must not keep the reader, and the engine with it.
        let shown = Arc::clone(&screen);
        tracker.spawn(async move {
            if until.run_until_cancelled(reading).await.is_none() {
                shown.tell_end(Output::Exit {
                    code: None,
                    message: "The terminal was closed.".to_owned(),
                });
            }
        });
        Ok(Self {
            id: Uuid::new_v4().to_string(),
            input: sender,
            screen,
            closed,
        })
    }

    /// Returns the id by which the window knows this terminal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
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
        self.send(&Input::Bytes, data).await
    }

    /// Changes the size.
    ///
    /// # Errors
    /// [`Error::TerminalNotFound`] when the shell has ended.
    pub async fn resize(&self, size: Size) -> Result<(), Error> {
        self.send(
            &Input::Resize {
                cols: size.cols,
                rows: size.rows,
            },
            &[],
        )
        .await
    }

    /// Takes note that the window has shown this many bytes since it was attached.
    pub fn acknowledge(&self, bytes: u64) {
        self.screen.acknowledge(bytes);
    }

    async fn send(&self, header: &Input, body: &[u8]) -> Result<(), Error> {
        let frame = encode(header, body)
            .map_err(|error| Error::field("data", format!("cannot be sent: {error}")))?;
        let sent = self
            .closed
            .run_until_cancelled(self.input.send(frame))
            .await;
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Error::TerminalNotFound(self.id.clone())),
        }
    }

    /// Hangs up.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Screen {
    fn new(sink: Sink) -> Self {
        Self {
            state: Mutex::new(ScreenState {
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

    async fn read(self: Arc<Self>, mut output: BoxStream<'static, Result<ExecOutput, Error>>) {
        let mut end = LastWord::default();
        let mut open = true;
        while open {
            self.wait_for_room().await;
            let mut batch = Vec::new();
            open = take(output.next().await, &mut batch, &mut end);
            let gathered_by = Instant::now() + GATHER;
            while open && batch.len() < BATCH {
                let next = if batch.len() < FLOOD {
                    output.next().now_or_never()
                } else {
                    tokio::time::timeout_at(gathered_by, output.next())
                        .await
                        .ok()
                };
                match next {
                    Some(piece) => open = take(piece, &mut batch, &mut end),
                    None => break,
                }
            }
            if !batch.is_empty() {
                self.show(&batch);
            }
        }
        self.end(&end);
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

    fn end(&self, end: &LastWord) {
        let exit = match end.read() {
            Some(End { code, message }) => Output::Exit { code, message },
            None => Output::Exit {
                code: None,
                message: "The connection to the container ended.".to_owned(),
            },
        };
        let left_out = self.lock().filter.left_out();
        if left_out > 0 || end.dropped > 0 {
            log::info!(
                "a terminal showed all but {left_out} bytes of its output, and {} bytes on the agent's \
                 standard error were dropped",
                end.dropped
            );
        }
        self.tell_end(exit);
    }

    fn tell_end(&self, exit: Output) {
        let mut state = self.lock();
        state.ended = Some(exit.clone());
        (state.sink)(exit);
    }

    fn attach(&self, sink: Sink) {
        let mut state = self.lock();
        state.sink = sink;
        state.filter.forget_shown();
        state.new = 0;
        state.sent = 0;
        state.acknowledged = 0;
        // It has passed before, but not in one piece.
        for piece in OutputFilter::default().pass(&state.replay()) {
            state.send(piece);
        }
        if let Some(exit) = state.ended.clone() {
            (state.sink)(exit);
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
        if !bytes.is_empty() {
            self.sent += bytes.len() as u64;
            (self.sink)(Output::Bytes(bytes));
        }
        self.new += new;
        if self.new >= NEW_CHARACTERS {
            self.new = 0;
            (self.sink)(Output::Pause);
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

/// The end of what came on the agent's standard error: how the shell ended, if nobody else wrote there.
#[derive(Default)]
struct LastWord {
    kept: VecDeque<u8>,
    dropped: u64,
}

impl LastWord {
    fn add(&mut self, bytes: &[u8]) {
        let new = bytes.len().saturating_sub(LAST_WORD);
        self.kept.extend(bytes.get(new..).unwrap_or_default());
        let old = self.kept.len().saturating_sub(LAST_WORD);
        self.kept.drain(..old);
        self.dropped += (new + old) as u64;
    }

    /// Returns the last [`End`] among what is kept, fit to be shown.
    fn read(&self) -> Option<End> {
        let text: Vec<u8> = self.kept.iter().copied().collect();
        let begins = (0..text.len())
            .rev()
            .filter(|at| text.get(*at) == Some(&b'{'));
        let mut ends = begins.filter_map(|at| {
            text.get(at..)
                .and_then(|end| serde_json::from_slice::<End>(end).ok())
        });
        let End { code, message } = ends.next()?;
        let shown = message.chars().filter(|character| !character.is_control());
        Some(End {
            code,
            message: shown.take(LONGEST_MESSAGE).collect(),
        })
    }
}

/// Sorts a piece of output: the screen's bytes, or the agent's last word. `false` at the end.
fn take(piece: Option<Result<ExecOutput, Error>>, batch: &mut Vec<u8>, end: &mut LastWord) -> bool {
    match piece {
        Some(Ok(ExecOutput::Out(bytes))) => batch.extend_from_slice(&bytes),
        Some(Ok(ExecOutput::Err(bytes))) => end.add(&bytes),
        Some(Err(error)) => {
            log::warn!("a terminal ended: {error}");
            return false;
        }
        None => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

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
                Output::Pause | Output::Exit { .. } => Vec::new(),
            })
            .collect()
    }

    fn stream(pieces: Vec<ExecOutput>) -> BoxStream<'static, Result<ExecOutput, Error>> {
        futures_util::stream::iter(pieces.into_iter().map(Ok)).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_does_not_acknowledge_is_waited_for() {
        let (sink, seen) = sink();
        let screen = Arc::new(Screen::new(sink));
        let pieces = vec![ExecOutput::Out(Bytes::from(vec![b'y'; 32 * 1024])); 256];
        let reader = tokio::spawn(Arc::clone(&screen).read(stream(pieces)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let shown = bytes_of(&seen).len() as u64;
        assert!(
            (WINDOW..WINDOW + BATCH as u64 + 32 * 1024).contains(&shown),
            "{shown}"
        );
        while !reader.is_finished() {
            screen.acknowledge(bytes_of(&seen).len() as u64);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(bytes_of(&seen).len(), 256 * 32 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_comes_back_sees_the_recent_output_and_the_end() {
        let (sink_one, _) = sink();
        let screen = Arc::new(Screen::new(sink_one));
        let end = r#"{"code":3,"message":"The shell ended with code 3."}"#;
        Arc::clone(&screen)
            .read(stream(vec![
                ExecOutput::Out(Bytes::from_static(b"hello\r\n")),
                ExecOutput::Err(Bytes::from_static(end.as_bytes())),
            ]))
            .await;
        let (sink_two, seen) = sink();
        screen.attach(sink_two);
        assert_eq!(
            *seen.lock(),
            [
                Output::Bytes(b"hello\r\n".to_vec()),
                Output::Exit {
                    code: Some(3),
                    message: "The shell ended with code 3.".to_owned()
                },
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn kept_output_is_bounded_and_starts_at_a_line() {
        let (sink_one, seen_one) = sink();
        let screen = Arc::new(Screen::new(sink_one));
        for _ in 0..100 {
            screen.show(&[&[b'x'; 9_999][..], b"\n"].concat());
        }
        let (sink_two, seen) = sink();
        screen.attach(sink_two);
        let replayed = bytes_of(&seen);
        assert!(replayed.len() <= KEPT);
        assert_eq!(replayed.len() % 10_000, 0, "whole lines only");
        assert_eq!(bytes_of(&seen_one).len(), 1_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_on_standard_error_is_dropped_and_the_last_word_still_heard() {
        let flood = Bytes::from(vec![0; 1 << 20]);
        let end = br#"{"code":3,"message":"The shell ended\u001b[31m with code 3."}"#;
        let (sink, seen) = sink();
        let screen = Arc::new(Screen::new(sink));
        let mut pieces = vec![ExecOutput::Err(flood); 169];
        pieces.push(ExecOutput::Out(Bytes::from_static(b"$ ")));
        pieces.push(ExecOutput::Err(Bytes::from_static(end)));
        screen.read(stream(pieces)).await;
        let message = "The shell ended[31m with code 3.".to_owned();
        let exit = Output::Exit {
            code: Some(3),
            message,
        };
        assert_eq!(*seen.lock(), [Output::Bytes(b"$ ".to_vec()), exit]);
    }

    #[test]
    fn a_last_word_keeps_its_end_alone() {
        let mut word = LastWord::default();
        for _ in 0..100 {
            word.add(&[b'x'; 1_000]);
        }
        assert_eq!(
            (word.kept.len(), word.dropped),
            (LAST_WORD, 100_000 - LAST_WORD as u64)
        );
        assert_eq!(word.read(), None);
    }

    #[test]
    fn what_is_slow_to_draw_comes_with_pauses_and_what_was_shown_before_with_none() {
        let (sink, seen) = sink();
        let screen = Screen::new(sink);
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
        let screen = Screen::new(first);
        screen.show("\x1b[40S".repeat(1_000).as_bytes());
        let (second, seen) = sink();
        screen.attach(second);
        assert!(seen.lock().len() > 30, "{}", seen.lock().len());
        assert_eq!(bytes_of(&seen).len(), 5_000);
        assert_eq!(screen.lock().sent, 5_000);
    }
}
