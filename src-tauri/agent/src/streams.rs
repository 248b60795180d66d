//! Many streams over one pipe: the connection between the app and the agent in a container.
//!
//! Each side begins with [`PREFACE`]. Frames follow: a byte that says what it is, the number of a stream and the length
//! of what comes with it (`u32`, big endian), and at most [`CHUNK`] bytes. The app opens streams, under rising
//! numbers; both sides write to a stream and finish it on their own, and either may reset it. A side sends no more than
//! the other has room for: a stream begins with a credit of [`WINDOW`] bytes in each direction, and gets more as what
//! has come is used. So a stream that nobody reads holds up itself and no other, and nobody has to keep more than a
//! window of any. Streams that have something to send take turns.
//!
//! Like [`crate::protocol`], which says what is written to a stream, this module does no I/O: bytes go in, events come
//! out, and bytes to be sent are fetched. The first frame that breaks the rules ends the connection.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// The version of what goes over the connection, this module and [`crate::protocol`] together.
pub const VERSION: u8 = 2;

/// What each side sends first. There is no way to talk to one that begins otherwise.
pub const PREFACE: [u8; 8] = [b'c', b'o', b'v', b'e', 0, 0, 0, VERSION];

/// The most bytes that come with a frame.
pub const CHUNK: usize = 64 << 10;

/// How many bytes of a stream may be on the way in one direction without having been used.
pub const WINDOW: u32 = 512 << 10;

/// How many bytes of a stream may be on the way in a direction in which much comes: so many are, where a connection passes
/// several programs that take turns.
pub const WIDE_WINDOW: u32 = 2 << 20;

/// The most bytes of a stream that wait to be sent.
pub const QUEUE: usize = 256 << 10;

/// The most streams that are open at the same time.
pub const MOST_STREAMS: usize = 1_000;

/// The bytes in front of what comes with a frame.
const HEAD: usize = 9;

/// Credit is given back in pieces of at least this many bytes.
const LEAST_GRANT: u32 = WINDOW / 8;

/// The number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// What a frame is; the numbers are what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open = 1,
    Data = 2,
    /// The sender writes no more.
    Finish = 3,
    /// The sender neither writes nor reads any more.
    Reset = 4,
    /// The sender has used so many bytes more.
    Credit = 5,
    Ping = 6,
    Pong = 7,
}

/// What has happened on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It opened a stream.
    Opened(StreamId),
    /// It wrote to a stream. Whoever has used the bytes says so to [`Streams::consume`].
    Arrived(StreamId, Vec<u8>),
    /// It writes no more to a stream.
    Finished(StreamId),
    /// It neither writes to a stream nor reads it any more.
    Reset(StreamId),
}

/// How the other side breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// It does not begin as it must: it speaks another version, or is something else.
    Preface,
    /// A frame of no known kind.
    Kind(u8),
    /// A frame of a length that it cannot have.
    Length(u32),
    /// A frame about a stream that cannot be.
    Stream(u32),
    /// More than there was credit for.
    Credit(u32),
    /// More streams than there may be.
    TooMany,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preface => f.write_str("the connection does not begin as it must"),
            Self::Kind(kind) => write!(f, "a frame of the unknown kind {kind}"),
            Self::Length(length) => write!(f, "a frame with a length of {length} bytes"),
            Self::Stream(stream) => write!(f, "a frame about the impossible stream {stream}"),
            Self::Credit(stream) => write!(f, "more than stream {stream} had credit for"),
            Self::TooMany => f.write_str("more streams than there may be"),
        }
    }
}

impl std::error::Error for StreamError {}

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    App,
    Agent,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Streams {
    side: Side,
    open: BTreeMap<StreamId, State>,
    /// The number of the stream that was opened last.
    last: u32,
    /// What has come and is not yet a whole frame.
    incoming: Vec<u8>,
    has_begun: bool,
    has_greeted: bool,
    /// Streams that have something to send, in the order of their turns.
    turns: VecDeque<StreamId>,
    /// Streams whose reset has not been sent.
    resets: VecDeque<StreamId>,
    /// A ping and a pong that have not been sent, at most one of each.
    to_say: Vec<Kind>,
}

#[derive(Debug)]
struct State {
    /// Whether the other side knows of the stream.
    is_told: bool,
    waiting: VecDeque<u8>,
    /// How many bytes may be sent.
    credit: u32,
    sending: Half,
    receiving: Half,
    /// How many bytes the other side may still send.
    lent: u32,
    /// How many bytes have been used, for which no credit was given back.
    used: u32,
    has_turn: bool,
}

/// How far one direction of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// Whoever writes has said that nothing follows, and that is still to be sent.
    Finishing,
    Finished,
}

impl State {
    fn new(is_told: bool) -> Self {
        Self {
            is_told,
            waiting: VecDeque::new(),
            credit: WINDOW,
            sending: Half::Open,
            receiving: Half::Open,
            lent: WINDOW,
            used: 0,
            has_turn: false,
        }
    }

    fn grants(&self) -> bool {
        self.used >= LEAST_GRANT && self.receiving == Half::Open
    }

    fn has_something_to_send(&self) -> bool {
        !self.is_told
            || self.grants()
            || (self.credit > 0 && !self.waiting.is_empty())
            || (self.sending == Half::Finishing && self.waiting.is_empty())
    }

    fn is_over(&self) -> bool {
        self.sending == Half::Finished && self.receiving == Half::Finished
    }
}

impl Streams {
    /// Returns the app's side, which opens streams.
    #[must_use]
    pub fn app() -> Self {
        Self::new(Side::App)
    }

    /// Returns the agent's side, which answers them.
    #[must_use]
    pub fn agent() -> Self {
        Self::new(Side::Agent)
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            open: BTreeMap::new(),
            last: 0,
            incoming: Vec::new(),
            has_begun: false,
            has_greeted: false,
            turns: VecDeque::new(),
            resets: VecDeque::new(),
            to_say: Vec::new(),
        }
    }

    /// Opens a stream; `None` when there are too many. Only the app's side does.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.side == Side::Agent || self.open.len() >= MOST_STREAMS {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        let id = StreamId(self.last);
        self.open.insert(id, State::new(false));
        self.take_turn(id);
        Some(id)
    }

    /// Returns how many bytes may be written to a stream at the moment: none to one that is finished or gone.
    #[must_use]
    pub fn room(&self, id: StreamId) -> usize {
        let state = self.open.get(&id);
        let writable = state.filter(|state| state.sending == Half::Open);
        writable.map_or(0, |state| QUEUE.saturating_sub(state.waiting.len()))
    }

    /// Writes to a stream, and returns how many of the bytes were taken: at most [`Self::room`].
    pub fn send(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let taken = bytes.get(..bytes.len().min(self.room(id)));
        let taken = taken.unwrap_or_default();
        if let Some(state) = self.open.get_mut(&id) {
            state.waiting.extend(taken);
        }
        self.take_turn(id);
        taken.len()
    }

    /// Writes no more to a stream.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(state) = self.open.get_mut(&id)
            && state.sending == Half::Open
        {
            state.sending = Half::Finishing;
            self.take_turn(id);
        }
    }

    /// Gives a stream up: nothing is written to it and nothing of it is heard any more.
    pub fn reset(&mut self, id: StreamId) {
        if self.open.remove(&id).is_some_and(|state| state.is_told) {
            self.resets.push_back(id);
        }
    }

    /// Takes note that so many bytes of a stream have been used, so that as many more may come.
    pub fn consume(&mut self, id: StreamId, bytes: usize) {
        if let Some(state) = self.open.get_mut(&id) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            state.used = state.used.saturating_add(bytes);
            self.take_turn(id);
        }
    }

    /// Lends a stream a [`WIDE_WINDOW`] for what comes on it; to be asked for once.
    pub fn widen(&mut self, id: StreamId) {
        self.consume(id, (WIDE_WINDOW - WINDOW) as usize);
    }

    /// Returns whether a stream is open in one direction at least.
    #[must_use]
    pub fn is_open(&self, id: StreamId) -> bool {
        self.open.contains_key(&id)
    }

    /// Asks the other side whether it is there. Whatever it sends answers that.
    pub fn ping(&mut self) {
        self.say(Kind::Ping);
    }

    /// Returns whether there is something to fetch.
    #[must_use]
    pub fn has_something_to_send(&self) -> bool {
        !self.has_greeted
            || !self.to_say.is_empty()
            || !self.resets.is_empty()
            || !self.turns.is_empty()
    }

    /// Fetches what is to be sent: whole frames, until there are `enough` bytes in `out` or no more.
    pub fn fetch(&mut self, out: &mut Vec<u8>, enough: usize) {
        if !std::mem::replace(&mut self.has_greeted, true) {
            out.extend_from_slice(&PREFACE);
        }
        for word in self.to_say.drain(..) {
            push_head(out, word, StreamId(0), 0);
        }
        while out.len() < enough
            && let Some(id) = self.resets.pop_front()
        {
            push_head(out, Kind::Reset, id, 0);
        }
        while out.len() < enough
            && let Some(id) = self.turns.pop_front()
        {
            let Some(state) = self.open.get_mut(&id) else {
                continue;
            };
            state.has_turn = false;
            if !std::mem::replace(&mut state.is_told, true) {
                push_head(out, Kind::Open, id, 0);
            }
            if state.grants() {
                let used = std::mem::take(&mut state.used);
                state.lent = state.lent.saturating_add(used);
                push_head(out, Kind::Credit, id, 4);
                out.extend_from_slice(&used.to_be_bytes());
            }
            let credit = usize::try_from(state.credit).unwrap_or(usize::MAX);
            let count = state.waiting.len().min(CHUNK).min(credit);
            if let Ok(length @ 1..) = u32::try_from(count) {
                push_head(out, Kind::Data, id, length);
                let (front, back) = state.waiting.as_slices();
                let in_front = count.min(front.len());
                out.extend_from_slice(front.get(..in_front).unwrap_or_default());
                out.extend_from_slice(back.get(..count - in_front).unwrap_or_default());
                state.waiting.drain(..count);
                state.credit -= length;
            }
            if state.sending == Half::Finishing && state.waiting.is_empty() {
                push_head(out, Kind::Finish, id, 0);
                state.sending = Half::Finished;
            }
            // What a burst needed is not kept for ever.
            if state.waiting.is_empty() {
                state.waiting = VecDeque::new();
            }
            if state.is_over() {
                self.open.remove(&id);
            } else {
                self.take_turn(id);
            }
        }
    }

    /// Takes in what has come, however it was cut on the way.
    ///
    /// # Errors
    /// [`StreamError`]: the connection cannot be used any more.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        if !self.has_begun {
            let count = rest.len().min(PREFACE.len());
            if rest.get(..count) != PREFACE.get(..count) {
                return Err(StreamError::Preface);
            }
            if count == PREFACE.len() {
                self.has_begun = true;
                rest = rest.get(count..).unwrap_or_default();
            }
        }
        let mut events = Vec::new();
        while self.has_begun
            && let Some((head, behind)) = rest.split_first_chunk::<HEAD>()
        {
            let [kind, s0, s1, s2, s3, l0, l1, l2, l3] = *head;
            let kind = kind_of(kind).ok_or(StreamError::Kind(kind))?;
            let length = u32::from_be_bytes([l0, l1, l2, l3]);
            let fits = match kind {
                Kind::Data => (1..=CHUNK).contains(&usize::try_from(length).unwrap_or(usize::MAX)),
                Kind::Credit => length == 4,
                Kind::Open | Kind::Finish | Kind::Reset | Kind::Ping | Kind::Pong => length == 0,
            };
            if !fits {
                return Err(StreamError::Length(length));
            }
            let Some((content, behind)) =
                behind.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX))
            else {
                break;
            };
            rest = behind;
            let id = StreamId(u32::from_be_bytes([s0, s1, s2, s3]));
            events.extend(self.hear(kind, id, content)?);
        }
        let used = incoming.len() - rest.len();
        self.incoming = incoming;
        self.incoming.drain(..used);
        Ok(events)
    }

    fn hear(
        &mut self,
        kind: Kind,
        id: StreamId,
        content: &[u8],
    ) -> Result<Option<Event>, StreamError> {
        match kind {
            Kind::Ping => {
                self.say(Kind::Pong);
                return Ok(None);
            }
            Kind::Pong => return Ok(None),
            Kind::Open => return self.hear_open(id).map(Some),
            Kind::Data | Kind::Finish | Kind::Reset | Kind::Credit => {}
        }
        if id.0 == 0 || id.0 > self.last {
            return Err(StreamError::Stream(id.0));
        }
        // What was sent before the other side heard of the end.
        let Some(state) = self.open.get_mut(&id) else {
            return Ok(None);
        };
        // Nobody answers a stream of which nothing was said.
        if !state.is_told {
            return Err(StreamError::Stream(id.0));
        }
        match kind {
            Kind::Data | Kind::Finish if state.receiving != Half::Open => {
                Err(StreamError::Stream(id.0))
            }
            Kind::Data => {
                let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
                let left = state.lent.checked_sub(length);
                state.lent = left.ok_or(StreamError::Credit(id.0))?;
                Ok(Some(Event::Arrived(id, content.to_vec())))
            }
            Kind::Finish => {
                state.receiving = Half::Finished;
                if state.is_over() {
                    self.open.remove(&id);
                }
                Ok(Some(Event::Finished(id)))
            }
            Kind::Reset => {
                self.open.remove(&id);
                Ok(Some(Event::Reset(id)))
            }
            Kind::Credit => {
                let bytes = content.try_into().map_or(0, u32::from_be_bytes);
                let credit = state.credit.checked_add(bytes);
                state.credit = credit.ok_or(StreamError::Credit(id.0))?;
                self.take_turn(id);
                Ok(None)
            }
            Kind::Open | Kind::Ping | Kind::Pong => Ok(None),
        }
    }

    fn hear_open(&mut self, id: StreamId) -> Result<Event, StreamError> {
        if self.side == Side::App || id.0 <= self.last {
            return Err(StreamError::Stream(id.0));
        }
        // Resets that the other side does not fetch are kept, too.
        if self.open.len() + self.resets.len() >= MOST_STREAMS {
            return Err(StreamError::TooMany);
        }
        self.last = id.0;
        self.open.insert(id, State::new(true));
        Ok(Event::Opened(id))
    }

    fn say(&mut self, word: Kind) {
        if !self.to_say.contains(&word) {
            self.to_say.push(word);
        }
    }

    fn take_turn(&mut self, id: StreamId) {
        if let Some(state) = self.open.get_mut(&id)
            && !state.has_turn
            && state.has_something_to_send()
        {
            state.has_turn = true;
            self.turns.push_back(id);
        }
    }
}

const fn kind_of(kind: u8) -> Option<Kind> {
    match kind {
        1 => Some(Kind::Open),
        2 => Some(Kind::Data),
        3 => Some(Kind::Finish),
        4 => Some(Kind::Reset),
        5 => Some(Kind::Credit),
        6 => Some(Kind::Ping),
        7 => Some(Kind::Pong),
        _ => None,
    }
}

fn push_head(out: &mut Vec<u8>, kind: Kind, id: StreamId, length: u32) {
    out.push(kind as u8);
    out.extend_from_slice(&id.0.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
