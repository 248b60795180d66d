//! Who looks which ports are listened on, and when: a thread of its own, once a second while somebody wants to know.
//!
//! It is made at the start, as those for calls are: later the session's processes may have used up its limit. What it has
//! found last waits for whoever sends it, and takes the place of what was not sent yet.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::calls::frame_of;
use crate::listening::Looker;
use crate::protocol::Reply;
use crate::streams::{StreamId, Streams};

/// How long until it is looked again.
const PAUSE: Duration = Duration::from_secs(1);
/// The stack of the thread. An image's `RUST_MIN_STACK` does not count.
const STACK: usize = 256 << 10;

/// The thread that looks.
pub(super) struct Looking {
    shared: Arc<Shared>,
    /// Whether the thread could be made.
    works: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    /// Counts what was found to be another than before.
    number: u64,
    found: Option<Found>,
}

/// What was found last, as it is sent.
#[derive(Clone)]
pub(super) struct Found {
    number: u64,
    frame: Arc<[u8]>,
}

/// What of it a stream was told.
#[derive(Default)]
pub(super) struct Told {
    /// What is being sent, and how much of it has been.
    current: Option<(Found, usize)>,
}

impl Looking {
    /// Makes the thread; it calls `wake` when something is to be told.
    pub(super) fn new(wake: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let looks = Arc::clone(&shared);
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn(move || looks.look_on(&wake));
        Self {
            shared,
            works: thread.is_ok(),
        }
    }

    /// Returns whether anything will be found.
    pub(super) const fn works(&self) -> bool {
        self.works
    }

    /// Takes note of whether anybody wants to know.
    pub(super) fn set_wanted(&self, is_wanted: bool) {
        let mut state = self.shared.lock();
        if state.is_wanted != is_wanted {
            state.is_wanted = is_wanted;
            // By the time that somebody asks again, it is old.
            state.found = None;
            self.shared.changed.notify_all();
        }
    }

    /// Returns what was found last.
    pub(super) fn found(&self) -> Option<Found> {
        self.shared.lock().found.clone()
    }
}

impl Shared {
    fn look_on(&self, wake: &dyn Fn()) {
        let mut looker = Looker::default();
        loop {
            let waiting = self
                .changed
                .wait_while(self.lock(), |state| !state.is_wanted);
            drop(waiting);
            let (ports, truncated) = looker.look();
            let frame = frame_of(Ok(Reply::WatchPorts { ports, truncated }), &[]);
            let mut state = self.lock();
            let is_known = |found: &Found| *found.frame == *frame;
            if state.is_wanted && !state.found.as_ref().is_some_and(is_known) {
                state.number += 1;
                state.found = Some(Found {
                    number: state.number,
                    frame: frame.into(),
                });
                wake();
            }
            let pause = self
                .changed
                .wait_timeout_while(state, PAUSE, |state| state.is_wanted);
            drop(pause);
        }
    }

    /// A panic elsewhere leaves these values whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Sends what is to be told on a stream, as much as there is room for: what is begun is told to its end.
    pub(super) fn go_on(
        &mut self,
        streams: &mut Streams,
        stream: StreamId,
        newest: Option<&Found>,
    ) {
        loop {
            if let Some((found, sent)) = &mut self.current {
                *sent += streams.send(stream, found.frame.get(*sent..).unwrap_or_default());
                if *sent < found.frame.len() {
                    return;
                }
            }
            let told = self.current.as_ref().map(|(found, _)| found.number);
            match newest {
                Some(newest) if Some(newest.number) != told => {
                    self.current = Some((newest.clone(), 0));
                }
                Some(_) | None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::protocol::{Decoder, Response};

    /// How long a machine may take that has much to do.
    const SOON: Duration = Duration::from_secs(20);

    fn ports_of(found: &Found) -> Vec<u16> {
        let mut decoder = Decoder::<Response>::new();
        decoder.push(&found.frame);
        match decoder.next_frame().unwrap().unwrap().header.result {
            Ok(Reply::WatchPorts { ports, .. }) => {
                ports.into_iter().map(|port| port.port).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_looked_while_somebody_wants_to_know_and_told_what_changed() {
        let (wake, woken) = mpsc::channel();
        let looking = Looking::new(move || wake.send(()).unwrap());
        assert!(looking.works());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(
            woken.recv_timeout(2 * PAUSE).is_err(),
            "nobody wants to know"
        );
        looking.set_wanted(true);
        woken.recv_timeout(SOON).unwrap();
        assert!(ports_of(&looking.found().unwrap()).contains(&port));
        drop(listener);
        // Other tests listen too.
        while ports_of(&looking.found().unwrap()).contains(&port) {
            woken.recv_timeout(SOON).unwrap();
        }
        looking.set_wanted(false);
        assert!(looking.found().is_none());
    }

    #[test]
    fn what_is_begun_is_told_to_its_end_and_then_only_the_newest() {
        let mut app = Streams::app();
        let mut agent = Streams::agent();
        let id = app.open().unwrap();
        let mut bytes = Vec::new();
        app.fetch(&mut bytes, usize::MAX);
        agent.receive(&bytes).unwrap();
        let found = |number: u64, byte: u8, length: usize| Found {
            number,
            frame: vec![byte; length].into(),
        };
        let room = agent.room(id);
        let mut told = Told::default();
        told.go_on(&mut agent, id, Some(&found(1, b'a', room + 10)));
        told.go_on(&mut agent, id, Some(&found(2, b'b', 10)));
        assert_eq!(agent.room(id), 0);
        bytes.clear();
        agent.fetch(&mut bytes, usize::MAX);
        told.go_on(&mut agent, id, Some(&found(3, b'c', 5)));
        told.go_on(&mut agent, id, Some(&found(3, b'c', 5)));
        told.go_on(&mut agent, id, None);
        agent.fetch(&mut bytes, usize::MAX);
        let arrived: Vec<u8> = app
            .receive(&bytes)
            .unwrap()
            .into_iter()
            .filter_map(|event| match event {
                crate::streams::Event::Arrived(_, bytes) => Some(bytes),
                _ => None,
            })
            .flatten()
            .collect();
        let expected = [vec![b'a'; room + 10], vec![b'c'; 5]].concat();
        assert!(arrived == expected, "{} bytes", arrived.len());
    }
}
