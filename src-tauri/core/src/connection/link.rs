//! One pipe to an agent, and the streams over it. It works until it breaks or is closed, and never again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cove_agent::protocol::{
    Call, CallError, Decoder, Failure, Frame, Header, MOST_SHOWN, ProtocolError, Reply, Response,
    VERSION, encode,
};
use cove_agent::streams::{Event, StreamId, Streams};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::until_going_on;
use crate::engine::{Exec, ExecOutput};
use crate::words;

/// How long an agent may be silent that was asked something, before it is asked whether it is there, and
/// how long it may take to say so.
const SILENCE: Duration = Duration::from_millis(1_200);
/// How often an agent that nobody asks anything is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The most bytes that are kept of what came instead of an answer.
const LONGEST_WORDS: usize = 300;
/// The most bytes of the agent's standard error that are heard.
const MOST_WORDS: usize = 4 << 10;
/// Bytes that are handed to the engine at once.
const AT_ONCE: usize = 64 << 10;

/// Why a link has no good answer.
#[derive(Debug)]
pub(super) enum LinkFailure {
    /// The agent answered that it failed.
    Refused(CallError),
    /// It was closed already.
    NotAsked,
    /// It broke before the answer.
    Broken,
}

/// The pipe to an agent.
#[derive(Debug)]
pub(super) struct Link {
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    state: Mutex<WireState>,
    /// Wakes whoever writes to the pipe.
    to_write: Notify,
    /// Bytes that have arrived.
    arrived: watch::Sender<u64>,
    /// What came instead of an answer: where an engine cannot start the agent's end, it says so there.
    instead: Mutex<Vec<u8>>,
    /// Somebody waits for an answer and hears nothing.
    doubted: Notify,
    closed: CancellationToken,
}

#[derive(Debug)]
struct WireState {
    streams: Streams,
    ends: HashMap<StreamId, End>,
}

/// The app's end of a stream. No more is in it than the stream's window.
#[derive(Debug)]
struct End {
    arrived: VecDeque<Vec<u8>>,
    /// Whether nothing follows.
    is_over: bool,
    /// Whether that is because the agent has said all that it had to say.
    is_finished: bool,
    wants_room: bool,
    changed: Arc<Notify>,
    /// Wakes who writes, who may be another than who reads.
    has_room: Arc<Notify>,
}

impl End {
    fn wake(&self) {
        self.changed.notify_one();
        self.has_room.notify_one();
    }
}

/// A stream of a link. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: Arc<Wire>,
    id: StreamId,
    changed: Arc<Notify>,
    has_room: Arc<Notify>,
}

/// The answers to a call that has several. Dropped, it ends what they are about.
#[derive(Debug)]
pub(crate) struct Answers {
    link: Arc<Link>,
    stream: Stream,
    decoder: Decoder<Response>,
    comes_seldom: bool,
}

impl Link {
    pub(super) fn over(exec: Exec, tracker: &TaskTracker) -> Self {
        let Exec {
            mut input,
            mut output,
            ..
        } = exec;
        let wire = Arc::new(Wire {
            state: Mutex::new(WireState {
                streams: Streams::app(),
                ends: HashMap::new(),
            }),
            to_write: Notify::new(),
            arrived: watch::Sender::new(0),
            instead: Mutex::default(),
            doubted: Notify::new(),
            closed: CancellationToken::new(),
        });

        let writer = Arc::clone(&wire);
        tracker.spawn(async move {
            let sending = async {
                let mut bytes = Vec::with_capacity(AT_ONCE);
                loop {
                    writer.fetch(&mut bytes);
                    if bytes.is_empty() {
                        writer.to_write.notified().await;
                        continue;
                    }
                    if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
                        break;
                    }
                    bytes.clear();
                }
            };
            // An agent that was stopped does not read, so that a write may never end.
            writer.closed.run_until_cancelled(sending).await;
            writer.close();
        });

        let reader = Arc::clone(&wire);
        tracker.spawn(async move {
            // Others in the container may be able to write there, too.
            let mut words_left = MOST_WORDS;
            while let Some(Some(Ok(piece))) = reader.closed.run_until_cancelled(output.next()).await
            {
                match piece {
                    ExecOutput::Out(bytes) => {
                        if !reader.take(&bytes) {
                            break;
                        }
                    }
                    ExecOutput::Err(bytes) => {
                        let said = bytes.slice(..bytes.len().min(words_left));
                        words_left -= said.len();
                        if !said.is_empty() {
                            log::warn!("agent: {}", String::from_utf8_lossy(&said).trim_end());
                            reader.note_instead(&said);
                        }
                    }
                }
            }
            reader.close();
        });
        Self { wire }
    }

    /// Asks the agent, and waits for its answer for as long as the link holds; `heard` is whenever a part of it comes.
    pub(super) async fn call(
        &self,
        call: &Call,
        body: &[u8],
        heard: &(dyn Fn() + Sync),
    ) -> Result<(Reply, Vec<u8>), LinkFailure> {
        self.doubting(self.ask(call, body, heard)).await
    }

    /// Begins what goes on after its answer: returns that and its body, the stream, and what follows on it.
    pub(super) async fn converse<N: Header>(
        &self,
        call: &Call,
    ) -> Result<(Reply, Vec<u8>, Stream, Decoder<N>), LinkFailure> {
        self.doubting(async {
            let stream = self.begin(call, &[]).await?;
            if let Call::Pack { .. } = call {
                stream.widen();
            }
            let (reply, body, decoder) = stream.answer(MOST_SHOWN, &|| ()).await?;
            Ok((reply, body, stream, decoder.followed_by()))
        })
        .await
    }

    /// Asks without waiting for the answer: more may be written behind the call at once.
    pub(super) async fn begin_raw(&self, call: &Call) -> Result<Stream, LinkFailure> {
        self.begin(call, &[]).await
    }

    /// Asks what is answered more than once.
    pub(super) async fn ask_for_many(self: Arc<Self>, call: &Call) -> Result<Answers, LinkFailure> {
        let stream = self.begin(call, &[]).await?;
        stream.finish();
        Ok(Answers {
            link: self,
            stream,
            decoder: Decoder::new().with_bodies_up_to(0),
            comes_seldom: false,
        })
    }

    pub(super) async fn hello(&self) -> Result<(Reply, Vec<u8>), LinkFailure> {
        let hello = Call::Hello { protocol: VERSION };
        self.ask(&hello, &[], &|| ()).await
    }

    async fn ask(
        &self,
        call: &Call,
        body: &[u8],
        heard: &(dyn Fn() + Sync),
    ) -> Result<(Reply, Vec<u8>), LinkFailure> {
        let stream = self.begin(call, body).await?;
        stream.finish();
        let most = match call {
            Call::Read { limit, .. } => usize::try_from(*limit).unwrap_or(usize::MAX),
            _ => 0,
        };
        let (reply, body, _) = stream.answer(most, heard).await?;
        Ok((reply, body))
    }

    async fn begin(&self, call: &Call, body: &[u8]) -> Result<Stream, LinkFailure> {
        let frame = encode(call, body).map_err(|error| {
            LinkFailure::Refused(CallError {
                failure: Failure::TooLarge,
                message: error.to_string(),
            })
        })?;
        let stream = self.wire.open()?;
        if stream.send(&frame).await {
            Ok(stream)
        } else {
            Err(LinkFailure::Broken)
        }
    }

    /// Waits for an answer, and says when it is long in coming.
    async fn doubting<T>(&self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        loop {
            match timeout(SILENCE, &mut answer).await {
                Ok(answer) => return answer,
                Err(_elapsed) => self.wire.doubted.notify_one(),
            }
        }
    }

    /// Returns when the agent, whose processes are not held up, does not say any more that it is there.
    pub(super) async fn fell_silent(&self, held_up: &mut watch::Receiver<bool>) {
        let mut arrived = self.wire.arrived.subscribe();
        loop {
            // With or without a doubt, it is asked.
            let _ = timeout(HEARTBEAT, self.wire.doubted.notified()).await;
            until_going_on(held_up).await;
            arrived.borrow_and_update();
            self.wire.state.lock().streams.ping();
            self.wire.to_write.notify_one();
            let heard = timeout(SILENCE, arrived.changed()).await;
            if heard.is_err() && !*held_up.borrow() {
                return;
            }
        }
    }

    /// Returns what came instead of an answer.
    pub(super) fn instead(&self) -> Vec<u8> {
        self.wire.instead.lock().clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.wire.closed.is_cancelled()
    }

    pub(super) async fn closed(&self) {
        self.wire.closed.cancelled().await;
    }

    pub(super) fn close(&self) {
        self.wire.close();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

impl Wire {
    fn open(self: &Arc<Self>) -> Result<Stream, LinkFailure> {
        let (changed, has_room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut state = self.state.lock();
        if self.closed.is_cancelled() {
            return Err(LinkFailure::NotAsked);
        }
        let Some(id) = state.streams.open() else {
            return Err(LinkFailure::Refused(CallError {
                failure: Failure::Io,
                message: "too much is under way at the same time".to_owned(),
            }));
        };
        let end = End {
            arrived: VecDeque::new(),
            is_over: false,
            is_finished: false,
            wants_room: false,
            changed: Arc::clone(&changed),
            has_room: Arc::clone(&has_room),
        };
        state.ends.insert(id, end);
        drop(state);
        Ok(Stream {
            wire: Arc::clone(self),
            id,
            changed,
            has_room,
        })
    }

    /// Fetches what is to be written next.
    fn fetch(&self, bytes: &mut Vec<u8>) {
        let mut state = self.state.lock();
        state.streams.fetch(bytes, AT_ONCE);
        for end in state.ends.values_mut() {
            if std::mem::take(&mut end.wants_room) {
                end.has_room.notify_one();
            }
        }
    }

    /// Hands out what has come; `false` when it makes no sense.
    fn take(&self, bytes: &[u8]) -> bool {
        self.arrived
            .send_modify(|arrived| *arrived += bytes.len() as u64);
        let mut state = self.state.lock();
        let events = match state.streams.receive(bytes) {
            Ok(events) => events,
            Err(error) => {
                drop(state);
                log::error!("what the agent says cannot be read: {error}");
                self.note_instead(bytes);
                return false;
            }
        };
        for event in events {
            let is_finish = matches!(event, Event::Finished(_));
            let (id, piece) = match event {
                Event::Arrived(id, bytes) => (id, Some(bytes)),
                Event::Finished(id) | Event::Reset(id) | Event::Opened(id) => (id, None),
            };
            // What is given up already is heard by nobody.
            if let Some(end) = state.ends.get_mut(&id) {
                if piece.is_none() {
                    end.is_over = true;
                    end.is_finished |= is_finish;
                    // Whoever waits to write may wait in vain.
                    end.has_room.notify_one();
                }
                end.arrived.extend(piece);
                if end.is_over {
                    end.wake();
                } else {
                    end.changed.notify_one();
                }
            }
        }
        // Credit, and an answer to a ping.
        if state.streams.has_something_to_send() {
            self.to_write.notify_one();
        }
        true
    }

    fn note_instead(&self, bytes: &[u8]) {
        let length = bytes.len().min(LONGEST_WORDS);
        *self.instead.lock() = bytes.get(..length).unwrap_or_default().to_vec();
    }

    fn close(&self) {
        // Under the lock, so that no stream is opened that nobody wakes.
        let state = self.state.lock();
        self.closed.cancel();
        for end in state.ends.values() {
            end.wake();
        }
    }
}

impl Stream {
    /// Writes to the stream; `false` when it is over or the link is broken.
    pub(crate) async fn send(&self, mut bytes: &[u8]) -> bool {
        loop {
            {
                let mut state = self.wire.state.lock();
                if self.wire.closed.is_cancelled() || !state.streams.is_open(self.id) {
                    return false;
                }
                let sent = state.streams.send(self.id, bytes);
                bytes = bytes.get(sent..).unwrap_or_default();
                if !bytes.is_empty()
                    && let Some(end) = state.ends.get_mut(&self.id)
                {
                    end.wants_room = true;
                }
            }
            self.wire.to_write.notify_one();
            if bytes.is_empty() {
                return true;
            }
            self.has_room.notified().await;
        }
    }

    /// Takes more at a time: much comes.
    fn widen(&self) {
        self.wire.state.lock().streams.widen(self.id);
        self.wire.to_write.notify_one();
    }

    /// Writes no more.
    pub(crate) fn finish(&self) {
        self.wire.state.lock().streams.finish(self.id);
        self.wire.to_write.notify_one();
    }

    /// Waits for what comes next; `None` when nothing does, or the link is broken. Nothing is lost when it is dropped.
    pub(crate) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.wire.state.lock();
                let end = state.ends.get_mut(&self.id)?;
                let (next, is_over) = (end.arrived.pop_front(), end.is_over);
                if let Some(bytes) = next {
                    state.streams.consume(self.id, bytes.len());
                    let is_due = state.streams.has_something_to_send();
                    drop(state);
                    if is_due {
                        self.wire.to_write.notify_one();
                    }
                    return Some(bytes);
                }
                if is_over || self.wire.closed.is_cancelled() {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns whether nothing follows because all has come: not after a reset, and not when the link broke.
    pub(crate) fn has_finished(&self) -> bool {
        let state = self.wire.state.lock();
        let end = state.ends.get(&self.id);
        end.is_some_and(|end| end.is_finished && end.arrived.is_empty())
    }

    /// Waits for the answer to the call that opened the stream for as long as it takes, and returns what came behind it;
    /// `None` when it is a refusal, or none comes.
    pub(crate) async fn accepted(&self) -> Option<Vec<u8>> {
        match self.answer(0, &|| ()).await {
            Ok((_, _, decoder)) => Some(decoder.into_rest()),
            Err(LinkFailure::Refused(error)) => {
                log::debug!("refused: {}", words::tamed(&error.message));
                None
            }
            Err(LinkFailure::NotAsked | LinkFailure::Broken) => None,
        }
    }

    /// Waits for the answer to the call that opened the stream, with a body of so many bytes at most.
    async fn answer(
        &self,
        most: usize,
        heard: &(dyn Fn() + Sync),
    ) -> Result<(Reply, Vec<u8>, Decoder<Response>), LinkFailure> {
        let mut decoder = Decoder::<Response>::new().with_bodies_up_to(most);
        while let Some(bytes) = self.next().await {
            heard();
            decoder.push(&bytes);
            match decoder.next_frame() {
                Ok(None) => {}
                Ok(Some(Frame { header, body })) => {
                    let reply = header.result.map_err(LinkFailure::Refused)?;
                    return Ok((reply, body, decoder));
                }
                Err(error) => return Err(LinkFailure::Refused(nonsense(&error))),
            }
        }
        Err(LinkFailure::Broken)
    }
}

impl Answers {
    /// Waits for the next answer; `None` behind the last, and when the connection broke.
    pub(crate) async fn next(&mut self) -> Option<Result<(Reply, Vec<u8>), CallError>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(Frame { header, body })) => {
                    return Some(header.result.map(|reply| (reply, body)));
                }
                Ok(None) => {}
                Err(error) => return Some(Err(nonsense(&error))),
            }
            let bytes = if self.comes_seldom {
                self.stream.next().await?
            } else {
                self.link.doubting(self.stream.next()).await?
            };
            self.decoder.push(&bytes);
        }
    }

    /// Takes note that there may be long times without an answer, which say nothing.
    pub(crate) fn that_come_seldom(self) -> Self {
        Self {
            comes_seldom: true,
            ..self
        }
    }
}

fn nonsense(error: &ProtocolError) -> CallError {
    log::error!("the agent's answer cannot be read: {error}");
    CallError {
        failure: Failure::Io,
        message: "it answered something else than was asked".to_owned(),
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.wire.state.lock();
        state.ends.remove(&self.id);
        state.streams.reset(self.id);
        drop(state);
        self.wire.to_write.notify_one();
    }
}
