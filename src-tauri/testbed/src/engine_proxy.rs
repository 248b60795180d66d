//! A socket between Cove and an engine that does to one request what a test wants, and lets all others through:
//! streams, uploads and hijacked connections as well.
//!
//! It knows HTTP/1.1 as far as clients of the engine's API use it, and nothing of the API. A request is read whole
//! before it is sent on; an answer goes on as it comes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::scratch::Scratch;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFault {
    /// The engine hears of it only after this time, even if the client has gone by then.
    HoldRequest(Duration),
    /// The engine has done it, and its answer comes this much later.
    HoldAnswer(Duration),
    /// The engine does not hear of it, and it is answered with this status and the engine's way to word an error.
    Refuse(u16),
    /// The engine does not hear of it, and the connection ends.
    CutBefore,
    /// The engine has heard of it, and the connection ends at once: it may be done before, after, or never.
    CutMeanwhile,
    /// The engine has done it, and the connection ends without a word.
    CutAfter,
    /// The engine has done it, and the connection ends in the middle of the answer.
    HalfAnswer,
    /// The engine has done it, and the answer is not HTTP.
    Garbage,
    /// The engine has done it, and the answer comes in small pieces with this much time between them.
    SlowAnswer(Duration),
}

/// Which request is meant: the n-th from now on that has this method and this text in its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    method: Option<&'static str>,
    path: &'static str,
    /// Texts in the paths of requests that are never meant.
    except: &'static [&'static str],
    /// How many that match go by before.
    before: usize,
}

impl Target {
    /// Returns the next request, whatever it is.
    #[must_use]
    pub const fn next() -> Self {
        Self {
            method: None,
            path: "",
            except: &[],
            before: 0,
        }
    }

    /// Returns the next request of this method with this text in its path, `("POST", "/containers/create")`.
    #[must_use]
    pub const fn request(method: &'static str, path: &'static str) -> Self {
        Self {
            method: Some(method),
            path,
            except: &[],
            before: 0,
        }
    }

    /// Lets this many go by before.
    #[must_use]
    pub const fn after(self, before: usize) -> Self {
        Self { before, ..self }
    }

    /// Does not mean requests with one of these texts in their paths.
    #[must_use]
    pub const fn except(self, except: &'static [&'static str]) -> Self {
        Self { except, ..self }
    }

    fn matches(&self, request: &str) -> bool {
        let (method, path) = request.split_once(' ').unwrap_or_default();
        self.method.is_none_or(|wanted| wanted == method)
            && path.contains(self.path)
            && !self.except.iter().any(|text| path.contains(text))
    }
}

/// A line to an engine; it ends with its guard.
#[derive(Debug)]
pub struct EngineProxy {
    line: Arc<Line>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    _scratch: Scratch,
}

#[derive(Debug)]
struct Line {
    engine: PathBuf,
    socket: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

/// The two ends of a connection, and what it carries.
#[derive(Debug)]
struct Ends {
    ends: [UnixStream; 2],
    /// The request that was last made over it.
    request: String,
}

#[derive(Debug, Default)]
struct State {
    refusing: bool,
    /// Until when nothing goes either way.
    silent_until: Option<Instant>,
    plan: Option<(Target, EngineFault)>,
    struck: Option<String>,
    requests: Vec<String>,
    connections: BTreeMap<u64, Ends>,
    count: u64,
}

impl EngineProxy {
    /// Opens a line to the engine that listens on this socket.
    ///
    /// # Errors
    /// When there is no place for a socket.
    pub fn start(engine: &Path) -> Result<Self> {
        let scratch = Scratch::new()?;
        let proxy = Self {
            line: Arc::new(Line {
                engine: engine.to_owned(),
                socket: scratch.path().join("engine.sock"),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            accepting: Mutex::new(None),
            _scratch: scratch,
        };
        proxy.listen()?;
        Ok(proxy)
    }

    /// Returns the address for a client, `unix:///…/engine.sock`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.line.socket.display())
    }

    /// Does this to the request that is meant, once. What was planned before is given up.
    pub fn strike(&self, target: Target, fault: EngineFault) {
        let mut state = self.line.state();
        state.plan = Some((target, fault));
        state.struck = None;
    }

    /// Plans nothing any more, and returns the request that was struck, `POST /v1.41/containers/create?name=x`.
    pub fn calm(&self) -> Option<String> {
        let mut state = self.line.state();
        state.plan = None;
        state.struck.take()
    }

    /// Returns the request that was struck, if one was.
    #[must_use]
    pub fn struck(&self) -> Option<String> {
        self.line.state().struck.clone()
    }

    /// Returns all requests so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.line.state().requests.clone()
    }

    /// Returns how many connections are open whose last request had this text in its path.
    #[must_use]
    pub fn open(&self, path: &str) -> usize {
        let state = self.line.state();
        let open = state.connections.values();
        open.filter(|connection| connection.request.contains(path))
            .count()
    }

    /// Cuts the open connections; new ones work.
    pub fn cut(&self) {
        self.line.cut();
    }

    /// Cuts the open connections whose last request had this text in its path, and returns how many there were.
    pub fn cut_only(&self, path: &str) -> usize {
        let state = self.line.state();
        let mut count = 0;
        for connection in state.connections.values() {
            if connection.request.contains(path) {
                connection.cut();
                count += 1;
            }
        }
        count
    }

    /// Lets nothing through either way for this long; connections stay open.
    pub fn hold_up(&self, time: Duration) {
        self.line.state().silent_until = Some(Instant::now() + time);
    }

    /// Cuts the open connections and refuses new ones: the socket is there, and nobody answers.
    pub fn refuse(&self) {
        self.line.state().refusing = true;
        self.line.cut();
        let accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(accepting) = accepting {
            // Its accept returns and sees the new state; when it has gone already, that is as good.
            let _ = UnixStream::connect(&self.line.socket);
            let _ = accepting.join();
        }
        self.line.cut();
    }

    /// Answers again after [`Self::refuse`].
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub fn resume(&self) -> Result<()> {
        if self.line.state().refusing {
            self.listen()?;
        }
        Ok(())
    }

    fn listen(&self) -> Result<()> {
        // A dead socket may be in the way; none is as good.
        let _ = std::fs::remove_file(&self.line.socket);
        let listener =
            UnixListener::bind(&self.line.socket).context("failed to open the proxy's socket")?;
        self.line.state().refusing = false;
        let line = Arc::clone(&self.line);
        let accepting = thread::spawn(move || line.accept(&listener));
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(accepting);
        Ok(())
    }
}

impl Ends {
    fn cut(&self) {
        for end in &self.ends {
            // A connection that its peer has closed needs no cutting.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        for connection in self.state().connections.values() {
            connection.cut();
        }
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.state().refusing {
                return;
            }
            let line = Arc::clone(self);
            thread::spawn(move || {
                // However a connection ends, its client sees that it has.
                let _ = line.connect(client);
            });
        }
    }

    fn connect(self: &Arc<Self>, client: UnixStream) -> io::Result<()> {
        let engine = UnixStream::connect(&self.engine)?;
        let ends = [client.try_clone()?, engine.try_clone()?];
        let number = {
            let mut state = self.state();
            if state.refusing {
                return Ok(());
            }
            state.count += 1;
            let number = state.count;
            let request = String::new();
            state.connections.insert(number, Ends { ends, request });
            number
        };
        let served = Connection::open(self, number, client, engine).and_then(Connection::serve);
        if let Some(connection) = self.state().connections.remove(&number) {
            // The other threads of this connection hold the ends open otherwise.
            connection.cut();
        }
        served
    }

    /// Notes a request, and returns what is planned for it.
    fn fault_for(&self, connection: u64, request: &str) -> Option<EngineFault> {
        let mut state = self.state();
        if let Some(connection) = state.connections.get_mut(&connection) {
            request.clone_into(&mut connection.request);
        }
        state.requests.push(request.to_owned());
        let (target, fault) = state.plan.as_mut()?;
        if !target.matches(request) {
            return None;
        }
        if target.before > 0 {
            target.before -= 1;
            return None;
        }
        let fault = *fault;
        state.plan = None;
        state.struck = Some(request.to_owned());
        Some(fault)
    }

    /// Waits while nothing goes through.
    fn wait_for_turn(&self) {
        let until = self.state().silent_until;
        if let Some(until) = until {
            self.hold(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits, unless the line ends meanwhile.
    fn hold(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut state = self.state();
        while !state.refusing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// One connection of a client, with one of its own to the engine.
struct Connection<'a> {
    line: &'a Line,
    number: u64,
    client: UnixStream,
    engine: UnixStream,
    from_client: Incoming,
    from_engine: BufReader<UnixStream>,
    watch: Arc<Watch>,
}

/// What is known of a client that may go at any time.
#[derive(Debug, Default)]
struct Watch {
    /// Both directions are streams: the end of one says nothing about the other.
    is_stream: AtomicBool,
    /// The engine is to hear what was sent even if the client has gone.
    is_held: AtomicBool,
    has_gone: AtomicBool,
}

impl<'a> Connection<'a> {
    fn open(
        line: &'a Line,
        number: u64,
        client: UnixStream,
        engine: UnixStream,
    ) -> io::Result<Self> {
        let (sender, pieces) = mpsc::sync_channel(64);
        let watch = Arc::new(Watch::default());
        let (mut reader, to_engine, seen) =
            (client.try_clone()?, engine.try_clone()?, Arc::clone(&watch));
        // An engine stops what it does for a client that has gone, so this must show at once.
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let piece = buffer.get(..count).unwrap_or_default().to_vec();
                if sender.send(piece).is_err() {
                    return;
                }
            }
            seen.has_gone.store(true, Ordering::SeqCst);
            if !seen.is_stream.load(Ordering::SeqCst) && !seen.is_held.load(Ordering::SeqCst) {
                // It may have closed first.
                let _ = to_engine.shutdown(Shutdown::Both);
            }
        });
        Ok(Self {
            line,
            number,
            from_client: Incoming {
                pieces,
                piece: Vec::new(),
                at: 0,
            },
            from_engine: BufReader::with_capacity(64 * 1024, engine.try_clone()?),
            client,
            engine,
            watch,
        })
    }

    fn serve(mut self) -> io::Result<()> {
        while let Some(head) = Head::read(&mut self.from_client)? {
            let fault = self.line.fault_for(self.number, &head.request());
            if head.has("expect", "100-continue") {
                self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut request = head.bytes.clone();
            let length = head.body_of_request();
            carry(&mut self.from_client, length, &mut |bytes| {
                request.extend_from_slice(bytes);
                Ok(())
            })?;
            match fault {
                Some(EngineFault::CutBefore) => return Ok(()),
                Some(EngineFault::Refuse(status)) => {
                    self.refuse(status)?;
                    continue;
                }
                Some(EngineFault::HoldRequest(time)) => self.hold(time, &request)?,
                Some(EngineFault::CutMeanwhile) => return self.engine.write_all(&request),
                Some(
                    EngineFault::HoldAnswer(_)
                    | EngineFault::CutAfter
                    | EngineFault::HalfAnswer
                    | EngineFault::Garbage
                    | EngineFault::SlowAnswer(_),
                )
                | None => {
                    self.line.wait_for_turn();
                    self.engine.write_all(&request)?;
                }
            }
            if !self.answer(head.is("HEAD"), fault)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn refuse(&mut self, status: u16) -> io::Result<()> {
        let body = r#"{"message":"something went wrong in the engine"}"#;
        let head = format!(
            "HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.client.write_all(head.as_bytes())?;
        self.client.write_all(body.as_bytes())
    }

    fn hold(&mut self, time: Duration, request: &[u8]) -> io::Result<()> {
        self.watch.is_held.store(true, Ordering::SeqCst);
        self.line.hold(time);
        let sent = self.engine.write_all(request);
        self.watch.is_held.store(false, Ordering::SeqCst);
        if self.watch.has_gone.load(Ordering::SeqCst) {
            // The engine hears the request, and that nobody waits for an answer.
            let _ = self.engine.shutdown(Shutdown::Write);
        }
        sent
    }

    /// Carries an answer; `false` when the connection ends with it.
    fn answer(&mut self, is_head: bool, fault: Option<EngineFault>) -> io::Result<bool> {
        let head = loop {
            let Some(head) = Head::read(&mut self.from_engine)? else {
                return Ok(false);
            };
            // What comes before an answer is not passed on: the request has been sent whole.
            if !matches!(head.status(), 100 | 102..=199) {
                break head;
            }
        };
        let length = head.body_of_answer(is_head);
        let is_stream = length == Length::Stream;
        let ended = match fault {
            None
            | Some(
                EngineFault::HoldRequest(_)
                | EngineFault::Refuse(_)
                | EngineFault::CutBefore
                | EngineFault::CutMeanwhile,
            ) => None,
            Some(EngineFault::HoldAnswer(time)) => {
                self.line.hold(time);
                None
            }
            Some(EngineFault::SlowAnswer(pause)) => {
                self.client.write_all(&head.bytes)?;
                let (client, line) = (&mut self.client, self.line);
                carry(&mut self.from_engine, length, &mut |bytes| {
                    for piece in bytes.chunks(32) {
                        line.hold(pause);
                        client.write_all(piece)?;
                    }
                    Ok(())
                })?;
                return Ok(!is_stream && length != Length::ToTheEnd);
            }
            Some(EngineFault::CutAfter | EngineFault::HalfAnswer | EngineFault::Garbage) => fault,
        };
        if let Some(fault) = ended {
            let mut answer = head.bytes;
            if !is_stream {
                carry(&mut self.from_engine, length, &mut |bytes| {
                    answer.extend_from_slice(bytes);
                    Ok(())
                })?;
            }
            if fault == EngineFault::HalfAnswer {
                answer.truncate(answer.len() / 2);
                self.client.write_all(&answer)?;
            } else if fault == EngineFault::Garbage {
                self.client.write_all(&[0x15; 64])?;
            }
            return Ok(false);
        }
        if is_stream {
            // Before the client can hear that it may end its own direction.
            self.watch.is_stream.store(true, Ordering::SeqCst);
            self.client.write_all(&head.bytes)?;
            self.stream()?;
            return Ok(false);
        }
        self.client.write_all(&head.bytes)?;
        let (client, line) = (&mut self.client, self.line);
        carry(&mut self.from_engine, length, &mut |bytes| {
            line.wait_for_turn();
            client.write_all(bytes)
        })?;
        Ok(length != Length::ToTheEnd && !head.has("connection", "close"))
    }

    /// Carries both directions until both have ended.
    fn stream(&mut self) -> io::Result<()> {
        let (engine, from_client) = (&mut self.engine, &mut self.from_client);
        let (from_engine, client) = (&mut self.from_engine, &mut self.client);
        let line = self.line;
        thread::scope(|scope| {
            scope.spawn(move || {
                // A side that has closed ends its direction, as does an error.
                let _ = carry(from_client, Length::ToTheEnd, &mut |bytes| {
                    line.wait_for_turn();
                    engine.write_all(bytes)
                });
                let _ = engine.shutdown(Shutdown::Write);
            });
            let carried = carry(from_engine, Length::ToTheEnd, &mut |bytes| {
                line.wait_for_turn();
                client.write_all(bytes)
            });
            // The engine has said all: a client that is still typing must see it, too.
            let _ = client.shutdown(Shutdown::Both);
            carried
        })
    }
}

/// What a client sends, as another thread reads it.
struct Incoming {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.piece.len() {
            self.at = 0;
            // The end of the pieces is the end of the client.
            self.piece = self.pieces.recv().unwrap_or_default();
        }
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

/// The first lines of a request or an answer, with the empty one.
struct Head {
    bytes: Vec<u8>,
}

/// How far a body reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunks,
    ToTheEnd,
    /// There is no body: the connection carries something else from here.
    Stream,
}

impl Head {
    /// Reads a head; `None` when the other side has ended instead.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let count = from.read_until(b'\n', &mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            if bytes.ends_with(b"\r\n\r\n") {
                return Ok(Some(Self { bytes }));
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns method and path.
    fn request(&self) -> String {
        let text = self.text();
        let mut words = text.split(' ');
        let method = words.next().unwrap_or_default();
        format!("{method} {}", words.next().unwrap_or_default())
    }

    fn is(&self, method: &str) -> bool {
        self.bytes.starts_with(format!("{method} ").as_bytes())
    }

    fn status(&self) -> u16 {
        let text = self.text();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<String> {
        self.text().lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_lowercase())
        })
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.field(name).is_some_and(|field| field.contains(value))
    }

    fn length(&self) -> Option<Length> {
        if self.has("transfer-encoding", "chunked") {
            return Some(Length::Chunks);
        }
        let bytes = self.field("content-length")?.parse().ok()?;
        Some(Length::Bytes(bytes))
    }

    fn body_of_request(&self) -> Length {
        self.length().unwrap_or(Length::Bytes(0))
    }

    fn body_of_answer(&self, is_head: bool) -> Length {
        match self.status() {
            101 => Length::Stream,
            204 | 304 => Length::Bytes(0),
            _ if is_head => Length::Bytes(0),
            // Engines hijack a connection without saying so, too.
            _ if self.length().is_none() && self.has("content-type", "-stream") => Length::Stream,
            _ => self.length().unwrap_or(Length::ToTheEnd),
        }
    }
}

/// Carries a body as it comes, framing included.
fn carry(
    from: &mut impl BufRead,
    length: Length,
    to: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match length {
        Length::Bytes(count) => carry_bytes(from, count, to),
        Length::ToTheEnd | Length::Stream => loop {
            let bytes = from.fill_buf()?;
            let count = bytes.len();
            if count == 0 {
                return Ok(());
            }
            to(bytes)?;
            from.consume(count);
        },
        Length::Chunks => loop {
            let line = carry_line(from, to)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                // Whatever follows the last chunk ends with an empty line.
                while !carry_line(from, to)?.trim().is_empty() {}
                return Ok(());
            }
            carry_bytes(from, size + 2, to)?;
        },
    }
}

fn carry_bytes(
    from: &mut impl BufRead,
    mut left: u64,
    to: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while left > 0 {
        let bytes = from.fill_buf()?;
        let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to(bytes.get(..count).unwrap_or_default())?;
        from.consume(count);
        left -= count as u64;
    }
    Ok(())
}

fn carry_line(
    from: &mut impl BufRead,
    to: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<String> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to(&line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each request with its own first line, after saying that it was heard.
    fn echo(scratch: &Scratch) -> (PathBuf, Receiver<String>) {
        let path = scratch.path().join("echo.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (heard, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                thread::spawn(move || {
                    let mut from = BufReader::new(stream.try_clone().unwrap());
                    let mut to = stream;
                    while let Ok(Some(head)) = Head::read(&mut from) {
                        let length = head.body_of_request();
                        if carry(&mut from, length, &mut |_| Ok(())).is_err() {
                            return;
                        }
                        heard.send(head.request()).unwrap();
                        let body = head.request();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                            body.len()
                        );
                        // A client that has been cut off is what the tests make.
                        let _ = to.write_all(answer.as_bytes());
                    }
                });
            }
        });
        (path, requests)
    }

    /// Returns all that comes until the answer is whole or the connection ends.
    fn read(mut stream: UnixStream) -> String {
        let (mut bytes, mut byte) = (Vec::new(), [0]);
        let is_whole = |bytes: &[u8]| bytes.ends_with(b"0\r\n\r\n") || bytes.ends_with(b"}");
        while !is_whole(&bytes) && matches!(stream.read(&mut byte), Ok(1)) {
            bytes.push(byte[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn send(proxy: &EngineProxy, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&proxy.line.socket).unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    #[test]
    fn the_request_that_is_meant_is_struck_and_no_other() {
        let scratch = Scratch::new().unwrap();
        let (path, hears) = echo(&scratch);
        let proxy = EngineProxy::start(&path).unwrap();
        let target = Target::request("POST", "/create").after(1);
        proxy.strike(target, EngineFault::Refuse(500));
        for request in ["GET /create", "POST /create?a", "POST /start"] {
            let answer = read(send(&proxy, request));
            assert!(
                answer.contains("200 OK") && answer.contains(request),
                "{answer}"
            );
            assert_eq!(hears.recv().unwrap(), request);
        }
        let answer = read(send(&proxy, "POST /create?b"));
        assert!(
            answer.starts_with("HTTP/1.1 500") && answer.contains("message"),
            "{answer}"
        );
        assert!(hears.try_recv().is_err());
        assert_eq!(proxy.calm().as_deref(), Some("POST /create?b"));
        assert!(read(send(&proxy, "POST /create?c")).contains("200 OK"));
        assert_eq!(proxy.requests().len(), 5);
    }

    #[test]
    fn each_fault_is_what_it_says() {
        let scratch = Scratch::new().unwrap();
        let (path, hears) = echo(&scratch);
        let proxy = EngineProxy::start(&path).unwrap();
        let struck = |fault| {
            proxy.strike(Target::next(), fault);
            let begin = Instant::now();
            let answer = read(send(&proxy, "POST /x"));
            let is_heard = hears.recv_timeout(Duration::from_millis(100)).is_ok();
            assert!(proxy.struck().is_some());
            (answer, is_heard, begin.elapsed())
        };
        let (answer, is_heard, _) = struck(EngineFault::CutBefore);
        assert_eq!((answer.as_str(), is_heard), ("", false));
        let (answer, is_heard, _) = struck(EngineFault::CutMeanwhile);
        assert_eq!((answer.as_str(), is_heard), ("", true));
        let (answer, is_heard, _) = struck(EngineFault::CutAfter);
        assert_eq!((answer.as_str(), is_heard), ("", true));
        let (answer, is_heard, _) = struck(EngineFault::HalfAnswer);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && !answer.ends_with("\r\n"),
            "{answer}"
        );
        assert!(is_heard);
        let (answer, is_heard, _) = struck(EngineFault::Garbage);
        assert!(answer.starts_with('\u{15}') && is_heard, "{answer}");
        let late = Duration::from_millis(80);
        for fault in [
            EngineFault::HoldRequest(late),
            EngineFault::HoldAnswer(late),
            EngineFault::SlowAnswer(late),
        ] {
            let (answer, is_heard, took) = struck(fault);
            assert!(answer.contains("POST /x") && is_heard, "{answer}");
            assert!(took >= late, "{fault:?} took {took:?}");
        }
    }

    #[test]
    fn a_line_that_is_held_up_carries_nothing_and_then_everything() {
        let scratch = Scratch::new().unwrap();
        let (path, hears) = echo(&scratch);
        let proxy = EngineProxy::start(&path).unwrap();
        let time = Duration::from_millis(200);
        proxy.hold_up(time);
        let begin = Instant::now();
        let stream = send(&proxy, "GET /one");
        assert!(hears.recv_timeout(time / 2).is_err());
        assert!(read(stream).contains("200 OK"));
        assert!(begin.elapsed() >= time, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_line_that_refuses_answers_nobody_until_it_resumes() {
        let scratch = Scratch::new().unwrap();
        let (path, _hears) = echo(&scratch);
        let proxy = EngineProxy::start(&path).unwrap();
        let mut open = UnixStream::connect(&proxy.line.socket).unwrap();
        assert!(read(send(&proxy, "GET /one")).contains("200 OK"));
        proxy.refuse();
        assert_eq!(open.read(&mut [0]).unwrap_or_default(), 0);
        let refused = UnixStream::connect(&proxy.line.socket).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.resume().unwrap();
        assert!(read(send(&proxy, "GET /two")).contains("200 OK"));
    }

    #[test]
    fn a_client_that_goes_away_is_gone_for_the_engine_too() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().join("silent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let proxy = EngineProxy::start(&path).unwrap();
        let client = send(&proxy, "POST /wait");
        let (mut engine, _) = listener.accept().unwrap();
        engine
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut request = vec![0; 4];
        engine.read_exact(&mut request).unwrap();
        assert_eq!(request, b"POST");
        drop(client);
        let mut rest = Vec::new();
        engine.read_to_end(&mut rest).unwrap();
    }
}
