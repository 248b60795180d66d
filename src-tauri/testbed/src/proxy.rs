//! A line to the registry that can be slow, silent, cut or closed, so that a pull lasts as long as a test needs.

mod profile;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use self::profile::{Profile, Shape};

/// A forwarding line to a registry; it ends with its guard.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    flow: Flow,
    /// When the next byte may go, by the pace.
    next: Instant,
    connections: Vec<TcpStream>,
    /// Connections whose client has not gone.
    open: usize,
}

/// How fast bytes go towards the client, over all connections.
#[derive(Debug)]
enum Pace {
    Unlimited,
    /// Bytes per second.
    Even(u64),
    Following {
        profile: Profile,
        /// When the first byte went.
        begun: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Stalled,
    Refusing,
    Ended,
}

impl Proxy {
    /// Opens a line to `target` (host and port) on a port of its own.
    ///
    /// # Errors
    /// When no loopback port can be had.
    pub fn start(target: &str) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).context("failed to open the proxy's port")?;
        let address = listener
            .local_addr()
            .context("failed to open the proxy's port")?;
        let line = Arc::new(Line {
            target: target.to_owned(),
            state: Mutex::new(State {
                pace: Pace::Unlimited,
                flow: Flow::Open,
                next: Instant::now(),
                connections: Vec::new(),
                open: 0,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&line);
        thread::spawn(move || accepting.accept(listener, address));
        Ok(Self { address, line })
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Limits what reaches the client to this many bytes per second, over all connections.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.line
            .change(|state| state.pace = Pace::Even(bytes_per_second.max(1)));
    }

    /// Limits what reaches the client as the profile says, over all connections.
    ///
    /// The profile's time begins with the first byte that goes from now on: what a test does between arming the link
    /// and the pull, and how long the engine takes to ask, does not eat into the profile.
    pub fn follow(&self, profile: Profile) {
        self.line.change(|state| {
            state.pace = Pace::Following {
                profile,
                begun: None,
            };
            state.next = Instant::now();
        });
    }

    /// Takes the limit away.
    pub fn unlimited(&self) {
        self.line.change(|state| state.pace = Pace::Unlimited);
    }

    /// Lets nothing through any more; connections stay open and silent.
    pub fn stall(&self) {
        self.line.change(|state| state.flow = Flow::Stalled);
    }

    /// Lets everything through again, after [`Self::stall`] or [`Self::refuse`].
    pub fn resume(&self) {
        self.line.change(|state| state.flow = Flow::Open);
    }

    /// Cuts the open connections; new ones work.
    pub fn cut(&self) {
        self.line.cut();
    }

    /// Cuts the open connections and refuses new ones.
    pub fn refuse(&self) {
        self.line.change(|state| state.flow = Flow::Refusing);
        self.line.cut();
        self.wake_acceptor();
    }

    /// Returns how many connections are open towards the client.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.line.state().open
    }

    fn wake_acceptor(&self) {
        // Its accept returns, sees the new flow and closes the port; refused already is as good.
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.change(|state| state.flow = Flow::Ended);
        self.line.cut();
        self.wake_acceptor();
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn cut(&self) {
        for connection in self.state().connections.drain(..) {
            // A connection that its peer has closed needs no cutting.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    fn accept(self: Arc<Self>, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        loop {
            let mut state = self.state();
            while state.flow == Flow::Refusing {
                listener = None;
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.flow == Flow::Ended {
                return;
            }
            drop(state);
            if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let Some(open) = &listener else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            if let Ok((client, _)) = open.accept() {
                let line = Arc::clone(&self);
                thread::spawn(move || line.serve(client));
            }
        }
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        if !matches!(self.state().flow, Flow::Open | Flow::Stalled) {
            return;
        }
        let Ok(server) = TcpStream::connect(&self.target) else {
            return;
        };
        let (Ok(client_reader), Ok(server_reader)) = (client.try_clone(), server.try_clone())
        else {
            return;
        };
        {
            let mut state = self.state();
            state.connections.extend(client.try_clone().ok());
            state.connections.extend(server.try_clone().ok());
            state.open += 1;
        }
        let upwards = Arc::clone(&self);
        thread::spawn(move || upwards.forward(client_reader, server, false));
        self.forward(server_reader, client, true);
        self.state().open -= 1;
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, limited: bool) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer) {
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            if !self.wait_for_turn(count as u64, limited) || to.write_all(bytes).is_err() {
                break;
            }
        }
        // Either side may have closed first.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }

    /// Waits until this many bytes may go; false when the line has been closed meanwhile.
    fn wait_for_turn(&self, count: u64, limited: bool) -> bool {
        let mut booked = None;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            match (state.flow, booked) {
                (Flow::Ended | Flow::Refusing, _) => return false,
                (Flow::Stalled, _) => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                (Flow::Open, None) => {
                    let turn = state.next.max(now);
                    let next = limited.then(|| state.pace.end_of(turn, count)).flatten();
                    let Some(next) = next else {
                        return true;
                    };
                    state.next = next;
                    booked = Some(next);
                }
                (Flow::Open, Some(turn)) if turn > now && state.pace.is_limited() => {
                    state = self
                        .changed
                        .wait_timeout(state, turn - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                (Flow::Open, Some(_)) => return true,
            }
        }
    }
}

impl Pace {
    /// Returns when the last of these bytes has gone whose first is free to go at `turn`; `None` without a limit.
    fn end_of(&mut self, turn: Instant, count: u64) -> Option<Instant> {
        match self {
            Self::Unlimited => None,
            Self::Even(rate) => {
                Some(turn + Duration::from_nanos(count.saturating_mul(1_000_000_000) / *rate))
            }
            Self::Following { profile, begun } => {
                let begun = *begun.get_or_insert(turn);
                Some(begun + profile.end_of(turn.saturating_duration_since(begun), count))
            }
        }
    }

    const fn is_limited(&self) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Even(_) | Self::Following { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `size` bytes to each that connects.
    fn source(size: usize) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut stream = stream;
                    // A cut line is what the tests make.
                    let _ = stream.write_all(&vec![7; size]);
                });
            }
        });
        address.to_string()
    }

    fn read_all(proxy: &Proxy) -> usize {
        let mut bytes = Vec::new();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        // A cut line ends in an error or in the end of the file; what came counts.
        let _ = stream.read_to_end(&mut bytes);
        bytes.len()
    }

    #[test]
    fn a_rate_makes_bytes_take_their_time() {
        let proxy = Proxy::start(&source(200_000)).unwrap();
        proxy.set_rate(1_000_000);
        let start = Instant::now();
        assert_eq!(read_all(&proxy), 200_000);
        let took = start.elapsed();
        assert!((0.15..2.0).contains(&took.as_secs_f64()), "{took:?}");
        proxy.unlimited();
        assert_eq!(read_all(&proxy), 200_000);
    }

    #[test]
    fn a_stalled_line_is_silent_until_it_resumes() {
        let proxy = Proxy::start(&source(100_000)).unwrap();
        proxy.stall();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!(stream.read(&mut [0; 10]).is_err());
        proxy.resume();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 100_000);
    }

    #[test]
    fn a_cut_ends_what_runs_and_lets_the_next_through() {
        let proxy = Proxy::start(&source(100_000)).unwrap();
        proxy.set_rate(50_000);
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        proxy.cut();
        let mut rest = Vec::new();
        // Whether the end shows as an error is the kernel's choice.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 99_990);
        proxy.unlimited();
        assert_eq!(read_all(&proxy), 100_000);
    }

    #[test]
    fn a_refusing_line_refuses_until_it_resumes() {
        let proxy = Proxy::start(&source(10)).unwrap();
        proxy.refuse();
        let start = Instant::now();
        while TcpStream::connect(proxy.address()).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        proxy.resume();
        while TcpStream::connect(proxy.address()).is_err() {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(read_all(&proxy), 10);
    }

    #[test]
    fn a_followed_profile_is_slow_and_fast_when_it_says_so() {
        let proxy = Proxy::start(&source(400_000)).unwrap();
        let expected = Duration::from_millis(800);
        proxy.follow(Profile::new(Shape::Ramping, 500_000.0, expected, 1));
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let start = Instant::now();
        // An even link of the same mean takes 0.2 s for these, the ramp 0.34 s.
        stream.read_exact(&mut vec![0; 100_000]).unwrap();
        let first = start.elapsed();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let took = start.elapsed();
        assert_eq!(rest.len(), 300_000);
        assert!((0.28..1.5).contains(&first.as_secs_f64()), "{first:?}");
        assert!((0.7..3.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn a_profiles_time_begins_with_the_first_byte_after_it_was_set() {
        let profile = Profile::new(Shape::Ramping, 1_000.0, Duration::from_secs(10), 1);
        let mut pace = Pace::Following {
            profile: profile.clone(),
            begun: None,
        };
        let first = Instant::now() + Duration::from_secs(60);
        let then = first + Duration::from_secs(5);
        let from_begin = profile.end_of(Duration::ZERO, 100);
        assert_eq!(pace.end_of(first, 100), Some(first + from_begin));
        let from_middle = profile.end_of(Duration::from_secs(5), 100);
        assert_eq!(pace.end_of(then, 100), Some(first + from_middle));
    }
}
