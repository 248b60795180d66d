//! Ports: which ones the programs of a session listen on, and the way to them from this machine. A forwarded port is a
//! listener at 127.0.0.1; each connection that it accepts is a stream to the agent, which connects inside the container.
//! Nothing is published on the engine.
//!
//! A connection ends as it would without all this: each half on its own, and what breaks or is refused anywhere breaks the
//! accepted one off, so that half is never taken for whole. When the connection to the agent breaks, the listeners stay
//! and those that were accepted end. When the session's programs are held up, new ones wait until these go on.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cove_agent::protocol::{Call, ListeningPort, MOST_FORWARDS, MOST_PORTS};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Connection, Stream};
use crate::error::Error;
use crate::session::{LocalPlace, Port};
use crate::words;

/// The most ports of a session that are forwarded at the same time.
pub const MOST_FORWARDED: usize = 100;
/// The most connections into a session at the same time; more wait to be accepted.
const MOST_CONNECTIONS: usize = MOST_FORWARDS - 16;
/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 128;
/// The most characters of a program's name that are told.
const LONGEST_NAME: usize = 64;
/// Bytes that are read at once.
const AT_ONCE: usize = 64 << 10;
/// How long to wait when this machine has no means for another connection.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Where forwarded ports are on this machine.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The ports of a ready session. It ends with the connection to the agent.
pub(crate) struct Ports {
    connection: Arc<Connection>,
    tracker: TaskTracker,
    /// Takes note that the session is used.
    used: watch::Sender<Instant>,
    connections: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<u16, Seen>,
    is_truncated: bool,
    forwarded: BTreeMap<u16, Forwarded>,
    /// What the user has said by hand.
    wishes: BTreeMap<u16, Wish>,
    /// Where ports were forwarded last: one whose program was started anew is there again.
    places: BTreeMap<u16, u16>,
}

/// A port that somebody listens on.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    address: IpAddr,
    process: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Forwarded,
    NotForwarded,
}

struct Forwarded {
    place: SocketAddr,
    /// Ends the listener.
    listening: CancellationToken,
    /// Ends what it has accepted, too.
    all: CancellationToken,
    /// Whether the listener is gone, so that another may listen there.
    gone: CancellationToken,
}

impl Ports {
    pub(crate) fn new(
        connection: Arc<Connection>,
        used: watch::Sender<Instant>,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            tracker,
            used,
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            state: Mutex::default(),
        })
    }

    /// Tells the ports by number, and whether there are more, while they cannot change.
    pub(crate) fn tell<T>(&self, told: impl FnOnce(Vec<Port>, bool) -> T) -> T {
        let state = self.state.lock();
        told(state.ports(), state.is_truncated)
    }

    /// Takes note of the ports that somebody listens on. Returns whether anything is another than before.
    pub(crate) fn hear(
        self: &Arc<Self>,
        ports: Vec<ListeningPort>,
        is_truncated: bool,
        automatic: bool,
    ) -> bool {
        let mut state = self.state.lock();
        let before = state.ports();
        let seen = seen(ports);
        let is_news = seen != state.seen || is_truncated != state.is_truncated;
        (state.seen, state.is_truncated) = (seen, is_truncated);
        self.settle(&mut state, automatic);
        is_news || state.ports() != before
    }

    /// Forwards by themselves what programs of the user listen on, or no longer. Returns whether anything is another than
    /// before.
    pub(crate) fn set_automatic(self: &Arc<Self>, automatic: bool) -> bool {
        let mut state = self.state.lock();
        let before = state.ports();
        self.settle(&mut state, automatic);
        state.ports() != before
    }

    /// Forwards a port, now and as long as the session is ready, whether or not somebody listens on it: to a port of this
    /// machine if one is named, else to the same number if that is free.
    ///
    /// # Errors
    /// [`Error::Validation`] for numbers that are none, for a port of this machine that cannot be had, and for more than
    /// [`MOST_FORWARDED`] ports.
    pub(crate) fn forward(self: &Arc<Self>, port: u16, local: Option<u16>) -> Result<(), Error> {
        if port == 0 {
            return Err(Error::field("port", "must be between 1 and 65,535"));
        }
        if local == Some(0) {
            return Err(Error::field("local_port", "must be between 1 and 65,535"));
        }
        let mut state = self.state.lock();
        let current = state.forwarded.get(&port).map(|forwarded| forwarded.place);
        let is_there = current.is_some_and(|place| local.is_none_or(|local| local == place.port()));
        if !is_there {
            if current.is_none() && state.forwarded.len() >= MOST_FORWARDED {
                let problem = format!("{MOST_FORWARDED} ports are forwarded; stop one first");
                return Err(Error::field("port", problem));
            }
            let listener = match local {
                Some(local) => listen_at(local).map_err(|error| taken(local, &error))?,
                None => state.listen_like(port).map_err(|error| {
                    Error::field("port", format!("cannot be forwarded: {error}"))
                })?,
            };
            if let Some(before) = state.forwarded.remove(&port) {
                before.all.cancel();
            }
            self.begin(&mut state, port, listener);
        }
        state.wishes.insert(port, Wish::Forwarded);
        Ok(())
    }

    /// Forwards a port no longer, also not by itself, and breaks its connections off. It may not be forwarded. Returns when
    /// its place is free.
    pub(crate) async fn unforward(&self, port: u16) {
        let forwarded = {
            let mut state = self.state.lock();
            state.wishes.insert(port, Wish::NotForwarded);
            state.forwarded.remove(&port)
        };
        if let Some(forwarded) = forwarded {
            forwarded.all.cancel();
            forwarded.gone.cancelled().await;
        }
    }

    /// Makes forwarded what is to be and no longer what is not.
    fn settle(self: &Arc<Self>, state: &mut State, automatic: bool) {
        let State {
            seen,
            wishes,
            forwarded,
            ..
        } = &mut *state;
        forwarded.retain(|port, forwarded| {
            let stays = wishes.contains_key(port) || (automatic && seen.contains_key(port));
            if !stays {
                // What was accepted goes on: a program may listen no more and still talk.
                forwarded.listening.cancel();
            }
            stays
        });
        if !automatic {
            return;
        }
        // What this user may not know belongs to another.
        let of_user = seen.iter().filter(|(_, seen)| seen.process.is_some());
        let missing = of_user
            .map(|(port, _)| *port)
            .filter(|port| !wishes.contains_key(port) && !forwarded.contains_key(port));
        let missing: Vec<u16> = missing.collect();
        for port in missing {
            if state.forwarded.len() >= MOST_FORWARDED {
                return;
            }
            match state.listen_like(port) {
                Ok(listener) => self.begin(state, port, listener),
                Err(error) => log::warn!("port {port} of a session is not forwarded: {error}"),
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        port: u16,
        (listener, place): (TcpListener, SocketAddr),
    ) {
        let all = CancellationToken::new();
        let listening = all.child_token();
        let gone = CancellationToken::new();
        let (ports, connections, until) = (Arc::clone(self), all.clone(), listening.clone());
        let at_end = gone.clone().drop_guard();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = ports.connection.closed() => {}
                () = until.cancelled() => {}
                () = ports.accept(port, listener, &connections) => {}
            }
            drop(at_end);
        });
        state.places.insert(port, place.port());
        let forwarded = Forwarded {
            place,
            listening,
            all,
            gone,
        };
        state.forwarded.insert(port, forwarded);
    }

    async fn accept(self: &Arc<Self>, port: u16, listener: TcpListener, all: &CancellationToken) {
        loop {
            self.connection.going_on().await;
            let accepted = match listener.accept().await {
                Ok((accepted, _)) => accepted,
                Err(error) => {
                    log::warn!("failed to accept a connection for a session: {error}");
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
            };
            // It is never closed.
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            let (ports, all) = (Arc::clone(self), all.clone());
            self.tracker.spawn(async move {
                ports.carry(port, accepted, &all).await;
                drop(permit);
            });
        }
    }

    /// Carries what goes over a connection, until both sides have ended it or one breaks it off.
    async fn carry(&self, port: u16, mut accepted: TcpStream, all: &CancellationToken) {
        let is_whole = tokio::select! {
            biased;
            () = self.connection.closed() => false,
            () = all.cancelled() => false,
            is_whole = self.carry_whole(port, &mut accepted) => is_whole,
        };
        if !is_whole {
            // Whoever has connected hears that it was broken off. Without that it would hear of an end.
            if let Err(error) = accepted.set_zero_linger() {
                log::debug!("a forwarded connection ends as if it were over: {error}");
            }
        }
    }

    /// Returns whether all that was written on either side has come to the other.
    async fn carry_whole(&self, port: u16, accepted: &mut TcpStream) -> bool {
        // Without it, single bytes are late; with that alone it works all the same.
        let _ = accepted.set_nodelay(true);
        let seen = self.state.lock().seen.get(&port).map(|seen| seen.address);
        let call = Call::Connect {
            // Where nobody listens, either family may be meant.
            address: seen.unwrap_or(Ipv6Addr::UNSPECIFIED.into()),
            port,
        };
        self.touch();
        let Ok(stream) = self.connection.begin(&call).await else {
            return false;
        };
        let (mut from, mut to) = accepted.split();
        let writing = async {
            let mut piece = vec![0; AT_ONCE];
            loop {
                match from.read(&mut piece).await {
                    Ok(0) => {
                        stream.finish();
                        return true;
                    }
                    Ok(count) => {
                        self.touch();
                        let bytes = piece.get(..count).unwrap_or_default();
                        if !stream.send(bytes).await {
                            // What came of the other side before is still to be read; that says how it ended.
                            return true;
                        }
                    }
                    Err(_) => return false,
                }
            }
        };
        let reading = self.read(&stream, &mut to);
        // One that is broken off ends the other.
        let both = async { tokio::try_join!(whole(writing), whole(reading)) };
        both.await.is_ok()
    }

    async fn read(&self, stream: &Stream, to: &mut (impl AsyncWriteExt + Unpin)) -> bool {
        let Some(mut bytes) = stream.accepted().await else {
            return false;
        };
        loop {
            if to.write_all(&bytes).await.is_err() {
                return false;
            }
            match stream.next().await {
                Some(next) => {
                    self.touch();
                    bytes = next;
                }
                None => return stream.has_finished() && to.shutdown().await.is_ok(),
            }
        }
    }

    fn touch(&self) {
        self.used.send_replace(Instant::now());
    }
}

async fn whole(is_whole: impl Future<Output = bool>) -> Result<(), ()> {
    if is_whole.await { Ok(()) } else { Err(()) }
}

impl State {
    fn ports(&self) -> Vec<Port> {
        let mut numbers: Vec<u16> = self
            .seen
            .keys()
            .chain(self.forwarded.keys())
            .copied()
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let ports = numbers.into_iter().map(|port| {
            let seen = self.seen.get(&port);
            Port {
                port,
                address: seen.map(|seen| seen.address.to_string()),
                process: seen.and_then(|seen| seen.process.clone()),
                local: self.forwarded.get(&port).map(|forwarded| LocalPlace {
                    host: forwarded.place.ip().to_string(),
                    port: forwarded.place.port(),
                }),
            }
        });
        ports.collect()
    }

    /// Listens where a port was forwarded last, or at the same number, or at any that is free.
    fn listen_like(&self, port: u16) -> io::Result<(TcpListener, SocketAddr)> {
        let last = self.places.get(&port).copied();
        let mut known = last.into_iter().chain([port]);
        let found = known.find_map(|known| listen_at(known).ok());
        found.map_or_else(|| listen_at(0), Ok)
    }
}

/// Listens at a port of this machine that nobody else listens at; 0 is any.
fn listen_at(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    // Elsewhere, this would take the place of somebody who listens at all addresses.
    if cfg!(target_os = "linux") {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(SocketAddr::new(HERE, port))?;
    let listener = socket.listen(BACKLOG)?;
    let place = listener.local_addr()?;
    Ok((listener, place))
}

fn taken(local: u16, error: &io::Error) -> Error {
    let problem = match error.kind() {
        ErrorKind::AddrInUse => format!("{local} is taken on this machine; choose another"),
        ErrorKind::PermissionDenied => {
            format!("{local} may not be used by you; choose one from 1024 on")
        }
        _ => format!("{local} cannot be used: {error}"),
    };
    Error::field("local_port", problem)
}

/// Holds what the agent tells against what there can be: one of each number, the easiest to reach, with a name that can be
/// shown.
fn seen(ports: Vec<ListeningPort>) -> BTreeMap<u16, Seen> {
    let ease = |address: IpAddr| {
        let everywhere = address.is_loopback() || address.is_unspecified();
        (!everywhere, address.is_ipv6())
    };
    let mut found: BTreeMap<u16, Seen> = BTreeMap::new();
    for told in ports.into_iter().take(MOST_PORTS) {
        let address = told.address.to_canonical();
        let is_easier = |other: &Seen| ease(address) < ease(other.address);
        if told.port == 0 || !found.get(&told.port).is_none_or(is_easier) {
            continue;
        }
        let process = told.process.map(|name| words::fit(&name, LONGEST_NAME));
        found.insert(told.port, Seen { address, process });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(port: u16, address: &str, process: Option<&str>) -> ListeningPort {
        ListeningPort {
            port,
            address: address.parse().unwrap(),
            process: process.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check(ports: Vec<ListeningPort>, expected: &[(u16, &str, Option<&str>)]) {
        let found = seen(ports);
        let found: Vec<_> = found
            .iter()
            .map(|(port, seen)| (*port, seen.address.to_string(), seen.process.as_deref()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(port, address, process)| (*port, (*address).to_owned(), *process))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn of_each_number_there_is_one_and_the_easiest_to_reach() {
        check(
            vec![
                told(8000, "10.0.0.3", Some("other")),
                told(8000, "::", Some("node")),
                told(3000, "::1", None),
                told(8000, "0.0.0.0", Some("python3")),
                told(8000, "127.0.0.1", Some("late")),
                told(9000, "::ffff:127.0.0.1", None),
                told(0, "127.0.0.1", None),
            ],
            &[
                (3000, "::1", None),
                (8000, "0.0.0.0", Some("python3")),
                (9000, "127.0.0.1", None),
            ],
        );
    }

    #[test]
    fn what_a_container_tells_is_bounded_and_can_be_shown() {
        let name = "a\u{1b}[31m\n\u{202e}b";
        check(
            vec![told(1, "127.0.0.1", Some(name))],
            &[(1, "127.0.0.1", Some("a\\u{1b}[31m \\u{202e}b"))],
        );
        let long = "x".repeat(1_000_000);
        let found = seen(vec![told(1, "::1", Some(&long))]);
        let shown = found.get(&1).and_then(|seen| seen.process.as_deref());
        assert_eq!(
            shown.map(|name| name.chars().count()),
            Some(LONGEST_NAME + 1)
        );
        let many = (1..=u16::MAX).map(|port| told(port, "127.0.0.1", None));
        assert_eq!(seen(many.collect()).len(), MOST_PORTS);
    }

    #[tokio::test]
    async fn a_number_that_is_taken_is_another_and_one_that_is_asked_for_is_an_error() {
        let (_listener, place) = listen_at(0).unwrap();
        assert_eq!(place.ip(), HERE);
        let error = listen_at(place.port()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let report = taken(place.port(), &error).report();
        let problem = report.details["fields"]["local_port"].as_str().unwrap();
        assert!(
            problem.ends_with("is taken on this machine; choose another"),
            "{problem}"
        );
        let (_other, other) = State::default().listen_like(place.port()).unwrap();
        assert_ne!(other.port(), place.port());
    }

    #[tokio::test]
    async fn one_that_was_elsewhere_is_there_again() {
        let (first, place) = listen_at(0).unwrap();
        let (_second, taken) = listen_at(0).unwrap();
        drop(first);
        let state = State {
            places: BTreeMap::from([(taken.port(), place.port())]),
            ..State::default()
        };
        let (_again, again) = state.listen_like(taken.port()).unwrap();
        assert_eq!(again, place);
    }
}
