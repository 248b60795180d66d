//! A TCP connection to a program in the container, as a stream. Nothing here waits: bytes pass as the other side has room
//! for them, each side may end its half, and a connection that breaks resets the stream, as a stream that is reset breaks
//! the connection.
//!
//! Only what is the container's own is connected to: the app says where, and may be told nonsense by the container.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with};

use super::{AT_ONCE, PIECES_IN_A_TURN, calls, is_for_later};
use crate::protocol::{CallError, Failure, Reply};
use crate::streams::{QUEUE, StreamId, Streams};

/// A connection, and what is on its way into it. Dropping it before it is over breaks it.
pub(super) struct Forward {
    socket: TcpStream,
    /// While it is not connected, where else it may be.
    connecting: Option<Vec<SocketAddr>>,
    /// What has come from the app: at most a window of the stream.
    waiting: VecDeque<u8>,
    /// For how many bytes of that as many more may come already.
    granted: usize,
    /// Whether nothing more comes from the app.
    is_last: bool,
    /// Whether the program has been told that.
    told_last: bool,
    /// How far what comes from the program is.
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// The program writes no more.
    Finished,
    /// The connection broke; what came before is still being sent.
    Broken,
}

/// Whether a connection goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It does.
    GoesOn,
    /// Both sides have ended it, or it has broken and the stream is reset.
    IsOver,
    /// It did not come about; this answers the call.
    Refused(CallError),
}

impl Forward {
    /// Begins to connect to a program that listens at this address; `first` has come with the call.
    ///
    /// # Errors
    /// [`Failure::Outside`] for an address that is not the container's own, [`Failure::Io`] where nobody listens.
    pub(super) fn begin(address: IpAddr, port: u16, first: Vec<u8>) -> Result<Self, CallError> {
        let places = places(address).into_iter();
        let mut places: Vec<_> = places.map(|place| SocketAddr::new(place, port)).collect();
        places.reverse();
        Ok(Self {
            socket: next_of(&mut places)?,
            connecting: Some(places),
            granted: first.len(),
            waiting: first.into(),
            is_last: false,
            told_last: false,
            reading: Reading::Open,
        })
    }

    /// Returns what is waited for, if anything; `room` is how much can be sent on the stream.
    pub(super) fn awaits(&self, room: usize) -> Option<(&TcpStream, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.connecting.is_some() || !self.waiting.is_empty() {
            flags |= PollFlags::OUT;
        }
        if self.connecting.is_none() && self.reads(room) {
            flags |= PollFlags::IN;
        }
        // What cannot be used now is not waited for: an end of it would wake the daemon for nothing.
        (!flags.is_empty()).then_some((&self.socket, flags))
    }

    fn reads(&self, room: usize) -> bool {
        self.reading == Reading::Open && room >= AT_ONCE
    }

    /// Takes in what has come from the app. Returns for how many bytes as many more may come.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.told_last {
            return bytes.len();
        }
        self.waiting.extend(bytes);
        self.write()
    }

    /// Takes note that nothing more comes from the app.
    pub(super) fn finish(&mut self) {
        self.is_last = true;
        self.write();
    }

    /// Does what it was waited for, without waiting: reads some pieces at most.
    pub(super) fn go_on(
        &mut self,
        streams: &mut Streams,
        stream: StreamId,
        piece: &mut [u8],
    ) -> Outcome {
        if let Some(mut places) = self.connecting.take() {
            match socket_error(&self.socket) {
                // It is the first that is sent on the stream.
                Ok(Ok(())) => {
                    streams.send(stream, &calls::frame_of(Ok(Reply::Connect), &[]));
                }
                Ok(Err(_)) | Err(_) => match next_of(&mut places) {
                    Ok(socket) => {
                        (self.socket, self.connecting) = (socket, Some(places));
                        return Outcome::GoesOn;
                    }
                    Err(refusal) => return Outcome::Refused(refusal),
                },
            }
        }
        let used = self.write();
        if used > 0 {
            streams.consume(stream, used);
        }
        for _ in 0..PIECES_IN_A_TURN {
            let room = streams.room(stream);
            if !self.reads(room) {
                break;
            }
            let most = room.min(piece.len());
            match self.socket.read(piece.get_mut(..most).unwrap_or_default()) {
                Ok(0) => {
                    self.reading = Reading::Finished;
                    streams.finish(stream);
                }
                Ok(count) => {
                    streams.send(stream, piece.get(..count).unwrap_or_default());
                    if count < most {
                        break;
                    }
                }
                Err(error) if is_for_later(&error) => break,
                Err(_) => self.reading = Reading::Broken,
            }
        }
        self.outcome(streams, stream)
    }

    /// Says what has become of it, now that so much has been sent on the stream.
    pub(super) fn outcome(&self, streams: &mut Streams, stream: StreamId) -> Outcome {
        match self.reading {
            Reading::Finished if self.told_last => Outcome::IsOver,
            Reading::Broken if streams.room(stream) == QUEUE || !streams.is_open(stream) => {
                // Never an end: what came may be half.
                streams.reset(stream);
                Outcome::IsOver
            }
            Reading::Open | Reading::Finished | Reading::Broken => Outcome::GoesOn,
        }
    }

    /// Writes what the program takes, and returns for how many bytes as many more may come.
    fn write(&mut self) -> usize {
        if self.connecting.is_some() {
            return 0;
        }
        let used = self.write_waiting();
        // What a burst needed is not kept for ever.
        self.waiting.shrink_to(AT_ONCE);
        if self.is_last && self.waiting.is_empty() && !self.told_last {
            self.told_last = true;
            // One that has broken meanwhile says so when it is read.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        let granted = used.min(self.granted);
        self.granted -= granted;
        used - granted
    }

    fn write_waiting(&mut self) -> usize {
        let mut used = 0;
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.socket.write(front) {
                Ok(count) => {
                    used += count;
                    self.waiting.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return used,
                // It takes no more. What it wrote before may still be there to be read.
                Err(_) => {
                    used += self.waiting.len();
                    self.waiting.clear();
                    self.told_last = true;
                }
            }
        }
        used
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if self.reading != Reading::Finished || !self.told_last {
            // The program hears that it was broken off. Without that it would hear of an end.
            let _ = set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }
}

/// Returns where a program is reached that listens at an address, the best first.
fn places(address: IpAddr) -> Vec<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![Ipv4Addr::LOCALHOST.into()],
        // It may listen for both families, where there may be no address of this one.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
        }
        address => vec![address],
    }
}

/// Begins to connect to the last of these places at which that does not fail at once.
fn next_of(places: &mut Vec<SocketAddr>) -> Result<TcpStream, CallError> {
    let mut last = Errno::CONNREFUSED;
    while let Some(place) = places.pop() {
        match begin_at(place) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    let failure = match last {
        Errno::ADDRNOTAVAIL => Failure::Outside,
        _ => Failure::Io,
    };
    let message = io::Error::from(last).to_string();
    Err(CallError { failure, message })
}

/// Begins to connect.
fn begin_at(place: SocketAddr) -> Result<TcpStream, Errno> {
    let family = match place {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if !place.ip().is_loopback() {
        // From where it is to: the kernel refuses this for an address that is not its own.
        bind(&socket, &SocketAddr::new(place.ip(), 0))?;
    }
    // Without it, single bytes are late.
    set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &place) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::event::{PollFd, poll};

    use super::*;
    use crate::protocol::{Decoder, Response};
    use crate::streams::Event;

    /// Both ends of a connection between the app and the daemon, a program's listener, and a stream.
    struct Both {
        app: Streams,
        agent: Streams,
        id: StreamId,
        listener: TcpListener,
        forward: Forward,
        /// What the app has heard.
        heard: Vec<u8>,
        ended: Option<Event>,
        outcome: Outcome,
    }

    impl Both {
        fn at(address: &str) -> Self {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let place = listener.local_addr().unwrap();
            let (mut app, mut agent) = (Streams::app(), Streams::agent());
            let id = app.open().unwrap();
            pass(&mut app, &mut agent);
            Self {
                app,
                agent,
                id,
                listener,
                forward: Forward::begin(place.ip(), place.port(), Vec::new()).unwrap(),
                heard: Vec::new(),
                ended: None,
                outcome: Outcome::GoesOn,
            }
        }

        /// Lets everything pass until this holds.
        fn until(&mut self, holds: impl Fn(&Self) -> bool) {
            let mut piece = vec![0; AT_ONCE];
            while !holds(self) {
                let is_quiet =
                    !self.app.has_something_to_send() && !self.agent.has_something_to_send();
                if self.outcome == Outcome::GoesOn && is_quiet {
                    if let Some((socket, flags)) = self.forward.awaits(self.agent.room(self.id)) {
                        poll(&mut [PollFd::new(socket, flags)], None).unwrap();
                    }
                    self.outcome = self.forward.go_on(&mut self.agent, self.id, &mut piece);
                }
                for event in pass(&mut self.app, &mut self.agent) {
                    match event {
                        Event::Arrived(_, bytes) => {
                            let used = self.forward.take(&bytes);
                            self.agent.consume(self.id, used);
                        }
                        Event::Finished(_) => self.forward.finish(),
                        Event::Opened(_) | Event::Reset(_) => panic!("{event:?}"),
                    }
                }
                for event in pass(&mut self.agent, &mut self.app) {
                    match event {
                        Event::Arrived(_, bytes) => {
                            self.app.consume(self.id, bytes.len());
                            self.heard.extend(bytes);
                        }
                        other => self.ended = Some(other),
                    }
                }
                if self.outcome == Outcome::GoesOn {
                    self.outcome = self.forward.outcome(&mut self.agent, self.id);
                }
            }
        }

        /// Returns what has come behind the answer.
        fn behind_answer(&self) -> Vec<u8> {
            let mut decoder = Decoder::<Response>::new();
            decoder.push(&self.heard);
            let answer = decoder.next_frame().unwrap().unwrap();
            assert_eq!(answer.header.result, Ok(Reply::Connect));
            decoder.into_rest()
        }
    }

    fn pass(from: &mut Streams, to: &mut Streams) -> Vec<Event> {
        let mut bytes = Vec::new();
        from.fetch(&mut bytes, usize::MAX);
        to.receive(&bytes).unwrap()
    }

    #[test]
    fn each_side_ends_its_half_and_all_that_came_before_arrives() {
        for address in ["127.0.0.1", "::1", "0.0.0.0"] {
            // A machine without IPv6 has no such program.
            if TcpListener::bind((address, 0)).is_err() {
                continue;
            }
            let mut both = Both::at(address);
            assert_eq!(both.app.send(both.id, b"question"), 8);
            both.app.finish(both.id);
            let (mut program, _) = both.listener.accept().unwrap();
            both.until(|both| both.forward.told_last);
            let mut question = String::new();
            program.read_to_string(&mut question).unwrap();
            assert_eq!(question, "question");
            program.write_all(b"answer").unwrap();
            drop(program);
            both.until(|both| both.ended.is_some());
            assert_eq!(both.ended, Some(Event::Finished(both.id)));
            assert_eq!(both.behind_answer(), b"answer");
            assert_eq!(both.outcome, Outcome::IsOver);
        }
    }

    #[test]
    fn a_program_that_breaks_off_is_no_end_and_what_it_wrote_before_arrives() {
        let mut both = Both::at("127.0.0.1");
        let (mut program, _) = both.listener.accept().unwrap();
        let half = vec![b'x'; 100_000];
        program.write_all(&half).unwrap();
        both.until(|both| both.heard.len() > half.len());
        set_socket_linger(&program, Some(Duration::ZERO)).unwrap();
        drop(program);
        both.until(|both| both.ended.is_some());
        assert_eq!(both.ended, Some(Event::Reset(both.id)));
        assert!(both.behind_answer() == half);
    }

    #[test]
    fn one_that_is_given_up_breaks_off_for_the_program() {
        let mut both = Both::at("127.0.0.1");
        let (mut program, _) = both.listener.accept().unwrap();
        both.until(|both| both.forward.connecting.is_none());
        drop(both.forward);
        let broken = program.read(&mut [0; 8]).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_program_that_does_not_read_is_waited_for_with_a_window_at_most() {
        let mut both = Both::at("127.0.0.1");
        let (mut program, _) = both.listener.accept().unwrap();
        both.until(|both| both.forward.connecting.is_none());
        let mut sent = 0;
        loop {
            let taken = both.app.send(both.id, &vec![b'y'; AT_ONCE]);
            sent += taken;
            for event in pass(&mut both.app, &mut both.agent) {
                if let Event::Arrived(id, bytes) = event {
                    let used = both.forward.take(&bytes);
                    both.agent.consume(id, used);
                }
            }
            pass(&mut both.agent, &mut both.app);
            if taken == 0 {
                break;
            }
        }
        let window = usize::try_from(crate::streams::WINDOW).unwrap();
        assert!(both.forward.waiting.len() <= window);
        both.app.finish(both.id);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            program.read_to_end(&mut all).unwrap();
            all.len()
        });
        both.until(|both| both.forward.told_last);
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[test]
    fn where_nobody_listens_it_is_refused_and_what_is_not_the_own_is_not_tried() {
        let refused = |address: &str, port| {
            let mut piece = vec![0; AT_ONCE];
            let mut streams = Streams::agent();
            let mut app = Streams::app();
            let id = app.open().unwrap();
            let mut forward = match Forward::begin(address.parse().unwrap(), port, Vec::new()) {
                Ok(forward) => forward,
                Err(refusal) => return refusal.failure,
            };
            loop {
                let (socket, flags) = forward.awaits(0).unwrap();
                poll(&mut [PollFd::new(socket, flags)], None).unwrap();
                match forward.go_on(&mut streams, id, &mut piece) {
                    Outcome::GoesOn => {}
                    Outcome::Refused(refusal) => return refusal.failure,
                    Outcome::IsOver => panic!("it is over"),
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(refused("127.0.0.1", port), Failure::Io);
        assert_eq!(refused("0.0.0.0", port), Failure::Io);
        assert_eq!(refused("::", port), Failure::Io);
        for foreign in ["192.0.2.1", "8.8.8.8", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert_eq!(refused(foreign, 80), Failure::Outside, "{foreign}");
        }
    }

    #[test]
    fn what_listens_for_both_families_is_reached_by_either() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let addresses = places("::".parse().unwrap());
        assert_eq!(addresses.len(), 2);
        for address in addresses {
            Forward::begin(address, port, Vec::new()).unwrap();
            listener.accept().unwrap();
        }
    }
}
