//! `agent daemon`: owns a session's terminals and answers the app, as the image's user. Process 1 starts it, and starts
//! another when it ends. It outlives every connection: the app may go and come back, and finds all as it was.
//!
//! **Who may speak to it.** It listens on a socket in a folder that only root can enter, before it becomes the image's
//! user, and takes nobody but root: [`crate::connect`], which the app has the engine start. Its own memory, descriptors
//! and environment are closed to other processes of its user (see [`crate::conceal`]). What a program of the same user
//! can do is what it can do to every program of that user: end it, and its terminals with it, or hold it up, until the
//! app connects.
//!
//! One thread reads and writes everything, and waits for nothing but the next thing to do, so that a window that does not
//! read keeps no Ctrl-C from the program that floods it. What may take long is done by [`calls`].

mod calls;
mod forward;
mod looking;
mod terminal;
mod transfers;
mod watch;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Resource, getrlimit};
use signal_hook::consts::{SIGCHLD, SIGTERM};

use self::calls::{Answering as Answerer, Calls, Part};
use self::forward::{Forward, Outcome};
use self::looking::{Found, Looking, Told};
use self::terminal::Terminal;
use self::transfers::{Job, Transfer, Transfers};
use self::watch::Watch;
use crate::accounts::Owner;
use crate::protocol::{
    Call, CallError, Decoder, Failure, Frame, MOST_FORWARDS, MOST_TERMINALS, Reply, encode,
};
use crate::streams::{Event, StreamId, Streams};
use crate::terminal::{Begins, Input, Output, PIECE, Tab, is_fit};
use crate::watch::{MOST_NEWS, Watched};
use crate::workspace::Workspace;
use crate::{pack, path};

/// The most connections at the same time: an app, one that takes its place, and some that are just breaking.
const MOST_CONNECTIONS: usize = 16;

/// The most calls of a connection that are being asked, worked on or answered.
const MOST_CALLS: usize = 256;

/// The most watches of all connections: each has a thread, and some of what the system lets a user watch.
const MOST_WATCHES: usize = 8;

/// Bytes that are read or written at once.
const AT_ONCE: usize = 64 << 10;

/// How often that is done for one side before it is the turn of another.
const PIECES_IN_A_TURN: usize = 4;

/// How long the end of the last shell may take on its way to the app when the container is stopped.
const FAREWELL: Duration = Duration::from_millis(150);

/// Returns where the daemon listens.
pub(crate) fn socket_in(directory: &Path) -> PathBuf {
    directory.join("daemon").join("socket")
}

/// Runs until process 1, which holds the other end of stdin, says that the container is being stopped.
#[must_use]
pub fn run(owner: &str, directory: &Path, workspace: &Path) -> ExitCode {
    match Daemon::start(owner, directory, workspace).and_then(|mut daemon| daemon.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It goes to the container's log; without one there is nobody to tell.
            let _ = writeln!(io::stderr(), "cove-agent: the daemon failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(directory: &Path) -> io::Result<UnixListener> {
    let socket = socket_in(directory);
    if let Some(folder) = socket.parent() {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Daemon {
    listener: UnixListener,
    /// The other end is process 1's: it ends when the container is being stopped.
    process_1: io::Stdin,
    /// What is written to its other end wakes the daemon.
    awake: UnixStream,
    calls: Calls,
    transfers: Transfers,
    /// What answers calls, and the streams of theirs.
    answers: mpsc::Receiver<(Place, Part)>,
    answering: Answering,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    terminals: Vec<Shown>,
    /// How a window shows them, for the next that does.
    tabs: Vec<Tab>,
    /// Shells whose terminals are gone, and who have not ended.
    left: Vec<Child>,
    stopping: Option<Instant>,
    looking: Looking,
    /// The streams whose TCP connections have something to do.
    ready: Vec<Place>,
    /// What is just being read.
    piece: Vec<u8>,
    /// How many files programs may have open: as many as the container sets.
    open_files: Option<u64>,
}

/// How an answer finds its way to the daemon.
#[derive(Clone)]
struct Answering {
    sender: mpsc::Sender<(Place, Part)>,
    waker: Waker,
}

/// Wakes the daemon, from any thread.
#[derive(Clone)]
struct Waker(Arc<UnixStream>);

impl Waker {
    /// Has the daemon look what there is to do, without waiting.
    fn wake(&self) {
        // One that has much to do is awake, and one that has ended needs nothing.
        let _ = (&*self.0).write(&[1]);
    }
}

/// A stream of a connection.
type Place = (u64, StreamId);

/// A terminal, and where it is shown.
struct Shown {
    id: String,
    terminal: Terminal,
    viewer: Option<Viewer>,
}

/// Who looks at a terminal.
#[derive(Debug, Clone, Copy)]
struct Viewer {
    place: Place,
    /// How much of the output has been sent, in bytes from the beginning of all.
    sent: u64,
}

struct Connection {
    socket: UnixStream,
    streams: Streams,
    out: Vec<u8>,
    talks: BTreeMap<StreamId, Talk>,
    /// Whether it is over.
    is_closed: bool,
}

/// What a stream is for.
enum Talk {
    /// The call has not come whole.
    Asking(Decoder<Call>),
    /// It is being worked on and answered.
    Answering(Answer),
    /// It shows a terminal.
    Terminal(View),
    /// It tells what changes.
    Watch(Look),
    /// Files come or go.
    Transfer(Transfer),
    /// It tells which ports are listened on.
    Ports(Told),
    /// It is a TCP connection.
    Forward(Forward),
}

/// An answer on its way.
struct Answer {
    /// What is still to be sent, with what has been sent.
    bytes: Vec<u8>,
    sent: usize,
    /// Whether nothing follows.
    is_whole: bool,
    /// Whether anybody waits for it.
    wanted: Arc<AtomicBool>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

/// A stream on which a terminal is shown.
struct View {
    /// The terminal's name.
    id: String,
    input: Decoder<Input>,
    /// What is to be sent before any output.
    first: Vec<u8>,
    /// Bytes that have come and not been granted anew, because the program does not read.
    held: usize,
}

/// A stream on which changes are told.
struct Look {
    watch: Watch,
    input: Decoder<Watched>,
    /// What is to be sent before any news.
    first: Vec<u8>,
}

impl Daemon {
    fn start(owner: &str, directory: &Path, workspace: &Path) -> io::Result<Self> {
        let (awake, waker) = UnixStream::pair()?;
        awake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        // A stop is heard of from process 1; programs may have something left to write. Not ignored: shells would
        // inherit that.
        signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false)))?;
        signal_hook::low_level::pipe::register(SIGCHLD, waker.try_clone()?)?;
        let listener = listen(directory)?;
        let owner = Owner::of(owner);
        owner.become_it()?;
        crate::conceal();
        let open_files = getrlimit(Resource::Nofile).current;
        pack::allow_depth();
        let (sender, answers) = mpsc::channel();
        let workspace = Workspace::open(workspace).map(Arc::new);
        let waker = Waker(Arc::new(waker));
        let woken = waker.clone();
        let looking = Looking::new(move || woken.wake());
        Ok(Self {
            listener,
            process_1: io::stdin(),
            awake,
            transfers: Transfers::new(&workspace),
            calls: Calls::new(workspace, directory.to_owned()),
            answers,
            answering: Answering { sender, waker },
            looking,
            ready: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            terminals: Vec::new(),
            tabs: Vec::new(),
            left: Vec::new(),
            stopping: None,
            piece: vec![0; AT_ONCE],
            open_files,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            // What wakes it says nothing but that.
            while matches!((&self.awake).read(&mut [0; 64]), Ok(1..)) {}
            self.left
                .retain_mut(|shell| matches!(shell.try_wait(), Ok(None)));
            for shown in &mut self.terminals {
                let sent = shown.viewer.map(|viewer| viewer.sent);
                shown.terminal.look_at_shell();
                shown.terminal.go_on(sent, &mut self.piece);
            }
            self.accept();
            while let Ok((place, part)) = self.answers.try_recv() {
                self.answer(place, part);
            }
            self.go_on_forwarding();
            let ids: Vec<u64> = self.connections.keys().copied().collect();
            let found = self.looking.found();
            for id in ids {
                self.hear(id);
                self.speak(id, found.as_ref());
            }
            self.forget_closed();
            self.calls.rest();
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let mut awaited = vec![
            PollFd::new(&self.awake, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        if self.stopping.is_none() {
            awaited.push(PollFd::new(&self.process_1, PollFlags::IN));
        }
        for connection in self.connections.values() {
            let mut flags = PollFlags::IN;
            if !connection.out.is_empty() || connection.streams.has_something_to_send() {
                flags |= PollFlags::OUT;
            }
            awaited.push(PollFd::new(&connection.socket, flags));
        }
        let first_forward = awaited.len();
        let mut forwards = Vec::new();
        for (id, connection) in &self.connections {
            for (stream, talk) in &connection.talks {
                if let Talk::Forward(forward) = talk
                    && let Some((socket, flags)) = forward.awaits(connection.streams.room(*stream))
                {
                    awaited.push(PollFd::new(socket, flags));
                    forwards.push((*id, *stream));
                }
            }
        }
        let mut hurries = false;
        for shown in &self.terminals {
            let sent = shown.viewer.map(|viewer| viewer.sent);
            hurries |= shown.terminal.hurries(sent);
            if let Some((tty, flags)) = shown.terminal.awaits(sent) {
                awaited.push(PollFd::new(tty, flags));
            }
        }
        let limit = if hurries {
            Some(Duration::ZERO)
        } else {
            self.stopping
                .filter(|_| self.shells_have_ended())
                .map(|since| FAREWELL.saturating_sub(since.elapsed()))
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut awaited, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let says_stop = self.stopping.is_none()
            && awaited
                .get(2)
                .is_some_and(|process_1| !process_1.revents().is_empty());
        let states = awaited.iter().skip(first_forward).zip(forwards);
        let ready = states.filter(|(socket, _)| !socket.revents().is_empty());
        self.ready = ready.map(|(_, place)| place).collect();
        if says_stop {
            self.stopping = Some(Instant::now());
        }
        Ok(())
    }

    /// Lets each TCP connection go on that has something to do, by some pieces at most.
    fn go_on_forwarding(&mut self) {
        for (id, stream) in self.ready.drain(..) {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let Some(Talk::Forward(forward)) = connection.talks.get_mut(&stream) else {
                continue;
            };
            match forward.go_on(&mut connection.streams, stream, &mut self.piece) {
                Outcome::GoesOn => {}
                Outcome::IsOver => drop(connection.talks.remove(&stream)),
                Outcome::Refused(refusal) => {
                    let refused = Talk::answering(Err(refusal));
                    connection.talks.insert(stream, refused);
                }
            }
        }
    }

    fn shells_have_ended(&self) -> bool {
        let mut terminals = self.terminals.iter();
        terminals.all(|shown| shown.terminal.has_ended())
    }

    /// Returns whether the container is being stopped and there is nothing left to do, or no time for it.
    fn is_over(&mut self) -> bool {
        let Some(since) = self.stopping else {
            return false;
        };
        if !self.shells_have_ended() {
            // The time for what is left begins with the end of the last shell.
            self.stopping = Some(Instant::now());
            return false;
        }
        let is_told = self.terminals.iter().all(|shown| shown.viewer.is_none());
        let mut connections = self.connections.values();
        let is_sent = connections.all(|connection| {
            connection.out.is_empty() && !connection.streams.has_something_to_send()
        });
        (is_told && is_sent) || since.elapsed() >= FAREWELL
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            // Nobody else gets here; and if somebody did, they would not be heard.
            let is_root = socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
            if !is_root
                || self.connections.len() >= MOST_CONNECTIONS
                || socket.set_nonblocking(true).is_err()
            {
                continue;
            }
            self.next_connection += 1;
            let connection = Connection {
                socket,
                streams: Streams::agent(),
                out: Vec::new(),
                talks: BTreeMap::new(),
                is_closed: false,
            };
            self.connections.insert(self.next_connection, connection);
        }
    }

    /// Takes in what has come from an app, some pieces at most.
    fn hear(&mut self, id: u64) {
        for _ in 0..PIECES_IN_A_TURN {
            if !self.hear_piece(id) {
                return;
            }
        }
    }

    /// Takes in a piece; `false` when there may be nothing more at the moment.
    fn hear_piece(&mut self, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let bytes = match connection.socket.read(&mut self.piece) {
            Ok(count @ 1..) => self.piece.get(..count).unwrap_or_default(),
            Err(error) if is_for_later(&error) => return false,
            Ok(0) | Err(_) => {
                connection.is_closed = true;
                return false;
            }
        };
        let is_full = bytes.len() == AT_ONCE;
        match connection.streams.receive(bytes) {
            Ok(events) => {
                for event in events {
                    self.react(id, event);
                }
                is_full
            }
            Err(error) => {
                // It goes to the container's log; without one there is nobody to tell.
                let _ = writeln!(io::stderr(), "cove-agent: {error}");
                connection.is_closed = true;
                false
            }
        }
    }

    fn react(&mut self, id: u64, event: Event) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match event {
            Event::Opened(stream) => {
                if connection.talks.len() >= MOST_CALLS + MOST_TERMINALS + MOST_FORWARDS {
                    connection.streams.reset(stream);
                } else {
                    let asking = Talk::Asking(Decoder::new());
                    connection.talks.insert(stream, asking);
                }
            }
            Event::Arrived(stream, bytes) => match connection.talks.remove(&stream) {
                Some(Talk::Asking(decoder)) => {
                    connection.streams.consume(stream, bytes.len());
                    self.hear_call((id, stream), decoder, &bytes);
                }
                Some(Talk::Terminal(view)) => self.hear_input((id, stream), view, &bytes),
                Some(Talk::Watch(look)) => {
                    connection.streams.consume(stream, bytes.len());
                    connection.hear_watched(stream, look, &bytes);
                }
                // What is used of it is granted anew when it is.
                Some(Talk::Transfer(transfer)) => {
                    transfer.hear(&bytes);
                    connection.talks.insert(stream, Talk::Transfer(transfer));
                }
                Some(Talk::Forward(mut forward)) => {
                    let used = forward.take(&bytes);
                    connection.streams.consume(stream, used);
                    connection.talks.insert(stream, Talk::Forward(forward));
                }
                // Nothing follows a call.
                other => {
                    connection.streams.consume(stream, bytes.len());
                    connection.talks.extend(other.map(|talk| (stream, talk)));
                }
            },
            Event::Finished(stream) => match connection.talks.get_mut(&stream) {
                Some(Talk::Asking(_) | Talk::Terminal(_) | Talk::Watch(_)) => {
                    connection.end(stream);
                }
                Some(Talk::Transfer(transfer)) => transfer.hear_end(),
                Some(Talk::Forward(forward)) => forward.finish(),
                Some(Talk::Answering(_) | Talk::Ports(_)) | None => {}
            },
            Event::Reset(stream) => drop(connection.talks.remove(&stream)),
        }
    }

    fn hear_call(&mut self, place: Place, mut decoder: Decoder<Call>, bytes: &[u8]) {
        decoder.push(bytes);
        let talk = match decoder.next_frame() {
            Ok(None) => Talk::Asking(decoder),
            Ok(Some(frame)) => self.begin(place, frame, decoder),
            Err(error) => refusal(Failure::Invalid, error.to_string()),
        };
        if let Some(connection) = self.connections.get_mut(&place.0) {
            connection.talks.insert(place.1, talk);
        }
    }

    fn begin(&mut self, place: Place, frame: Frame<Call>, decoder: Decoder<Call>) -> Talk {
        match frame.header {
            call @ (Call::Terminals
            | Call::OpenTerminal { .. }
            | Call::AttachTerminal { .. }
            | Call::CloseTerminal { .. }
            | Call::TerminalPrograms { .. }
            | Call::ArrangeTerminals { .. }) => self.begin_of_terminal(place, call, decoder),
            Call::Watch => match self.watch() {
                Ok(watch) => Talk::Watch(Look {
                    watch,
                    input: decoder.followed_by(),
                    first: calls::frame_of(Ok(Reply::Watch), &[]),
                }),
                Err(error) => Talk::answering(Err(error)),
            },
            Call::WatchPorts if self.looking.works() => Talk::Ports(Told::default()),
            Call::WatchPorts => {
                let message = "the session's process limit was used up at its start".to_owned();
                refusal(Failure::Io, message)
            }
            Call::Connect { address, port } => self.connect(place, address, port, decoder),
            Call::Pack { paths, resume } => self.transfer(Job::Pack { paths, resume }, decoder),
            Call::Unpack {
                folder,
                names,
                taken,
            } => {
                self.widen(place);
                let job = Job::Unpack {
                    folder,
                    names,
                    taken,
                };
                self.transfer(job, decoder)
            }
            header => {
                let body = frame.body;
                self.work_on(place, Frame { header, body })
            }
        }
    }

    /// Takes more at a time on a stream on which much comes.
    fn widen(&mut self, (id, stream): Place) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.streams.widen(stream);
        }
    }

    /// Lets somebody work on a call.
    fn work_on(&self, place: Place, frame: Frame<Call>) -> Talk {
        let Answering { sender, waker } = self.answering.clone();
        let say = move |part| {
            // A daemon that has ended needs no answer.
            let _ = sender.send((place, part));
            waker.wake();
        };
        let wanted = Arc::new(AtomicBool::new(true));
        let answerer = Answerer {
            say: Box::new(say),
            wanted: Arc::clone(&wanted),
        };
        self.calls.begin(frame, answerer);
        Talk::Answering(Answer {
            bytes: Vec::new(),
            sent: 0,
            is_whole: false,
            wanted,
        })
    }

    fn begin_of_terminal(&mut self, place: Place, call: Call, decoder: Decoder<Call>) -> Talk {
        let view = |id: String, reply: Reply, shown: &[u8]| {
            Talk::Terminal(View {
                id,
                input: decoder.followed_by(),
                first: calls::frame_of(Ok(reply), shown),
                held: 0,
            })
        };
        match call {
            Call::Terminals => {
                let terminals = self.terminals.iter();
                let terminals = terminals.map(|shown| shown.id.clone()).collect();
                let tabs = self.tabs.clone();
                Talk::answering(Ok(Reply::Terminals { terminals, tabs }))
            }
            Call::OpenTerminal {
                id,
                cols,
                rows,
                begins,
            } => match self.open(place, &id, (cols, rows), begins) {
                Ok(()) => view(id, Reply::OpenTerminal, &[]),
                Err((failure, message)) => refusal(failure, message),
            },
            Call::AttachTerminal { id, from } => {
                let mut terminals = self.terminals.iter_mut();
                let Some(shown) = terminals.find(|shown| shown.id == id) else {
                    return refusal(Failure::NotFound, "there is no such terminal".to_owned());
                };
                let (from, screen) = shown.terminal.resume(from);
                let (written, typed) = (shown.terminal.written(), shown.terminal.typed_in_all());
                let before = shown.viewer.replace(Viewer { place, sent: from });
                if let Some(Viewer { place, .. }) = before
                    && let Some(connection) = self.connections.get_mut(&place.0)
                {
                    connection.talks.remove(&place.1);
                    connection.streams.reset(place.1);
                }
                let reply = Reply::AttachTerminal {
                    from,
                    written,
                    typed,
                };
                view(id, reply, &screen)
            }
            Call::CloseTerminal { id } => {
                if let Some(at) = self.terminals.iter().position(|shown| shown.id == id) {
                    let shown = self.terminals.remove(at);
                    if let Some(Viewer { place, .. }) = shown.viewer
                        && let Some(connection) = self.connections.get_mut(&place.0)
                    {
                        connection.end(place.1);
                    }
                    self.left.push(shown.terminal.hang_up());
                }
                Talk::answering(Ok(Reply::CloseTerminal))
            }
            Call::TerminalPrograms { id } => {
                let mut terminals = self.terminals.iter();
                match terminals.find(|shown| shown.id == id) {
                    Some(shown) => Talk::answering(Ok(Reply::TerminalPrograms {
                        programs: shown.terminal.programs(),
                    })),
                    None => refusal(Failure::NotFound, "there is no such terminal".to_owned()),
                }
            }
            Call::ArrangeTerminals { tabs } if is_fit(&tabs) => {
                self.tabs = tabs;
                Talk::answering(Ok(Reply::ArrangeTerminals))
            }
            Call::ArrangeTerminals { .. } => {
                refusal(Failure::Invalid, "this is too much to keep".to_owned())
            }
            _ => refusal(Failure::Invalid, "it is about no terminal".to_owned()),
        }
    }

    fn transfer(&self, job: Job, decoder: Decoder<Call>) -> Talk {
        let rest = decoder.into_rest();
        match self.transfers.begin(job, rest, &self.answering.waker) {
            Ok(transfer) => Talk::Transfer(transfer),
            Err(error) => Talk::answering(Err(error)),
        }
    }

    fn open(
        &mut self,
        place: Place,
        id: &str,
        size: (u16, u16),
        begins: Option<Begins>,
    ) -> Result<(), (Failure, String)> {
        if self.stopping.is_some() {
            let message = "the container is being stopped".to_owned();
            return Err((Failure::NotReady, message));
        }
        if self.terminals.iter().any(|shown| shown.id == id) {
            let message = "there is a terminal of this name".to_owned();
            return Err((Failure::Exists, message));
        }
        if self.terminals.len() >= MOST_TERMINALS {
            let message = format!("There are {MOST_TERMINALS} terminals; close one first.");
            return Err((Failure::Invalid, message));
        }
        let folder = begins.and_then(|begins| match begins {
            Begins::At { path } => Some(path),
            Begins::Like { id } => {
                let mut terminals = self.terminals.iter();
                let like = terminals.find(|shown| shown.id == id)?;
                like.terminal.folder().map(|folder| path::encode(&folder))
            }
        });
        let terminal = Terminal::open(size, self.open_files, folder.as_deref())
            .map_err(|message| (Failure::Io, message))?;
        self.terminals.push(Shown {
            id: id.to_owned(),
            terminal,
            viewer: Some(Viewer { place, sent: 0 }),
        });
        Ok(())
    }

    fn watch(&self) -> Result<Watch, CallError> {
        let talks = self
            .connections
            .values()
            .flat_map(|connection| connection.talks.values());
        if talks.filter(|talk| matches!(talk, Talk::Watch(_))).count() >= MOST_WATCHES {
            return Err(CallError {
                failure: Failure::Invalid,
                message: "files are watched too often at the same time".to_owned(),
            });
        }
        let waker = self.answering.waker.clone();
        Watch::begin(self.calls.workspace()?, move || waker.wake()).map_err(|error| CallError {
            failure: Failure::Io,
            message: format!("files cannot be watched: {error}"),
        })
    }

    fn connect(&self, (id, _): Place, address: IpAddr, port: u16, decoder: Decoder<Call>) -> Talk {
        let connection = self.connections.get(&id).into_iter();
        let talks = connection.flat_map(|connection| connection.talks.values());
        let forwards = talks.filter(|talk| matches!(talk, Talk::Forward(_)));
        if forwards.count() >= MOST_FORWARDS {
            let message = format!("there are {MOST_FORWARDS} connections already");
            return refusal(Failure::Io, message);
        }
        let begun = Forward::begin(address, port, decoder.into_rest());
        begun.map_or_else(|refusal| Talk::answering(Err(refusal)), Talk::Forward)
    }

    fn hear_input(&mut self, place: Place, mut view: View, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&place.0) else {
            return;
        };
        view.input.push(bytes);
        view.held += bytes.len();
        let mut terminals = self.terminals.iter_mut();
        let shown = terminals.find(|shown| shown.id == view.id);
        let mut terminal = shown.map(|shown| &mut shown.terminal);
        loop {
            match view.input.next_frame() {
                Ok(Some(Frame { header, body })) => {
                    let Some(terminal) = &mut terminal else {
                        continue;
                    };
                    match header {
                        Input::Bytes => terminal.type_in(&body),
                        Input::Resize { cols, rows } => terminal.resize(cols, rows),
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    connection.streams.reset(place.1);
                    return;
                }
            }
        }
        connection.talks.insert(place.1, Talk::Terminal(view));
    }

    fn answer(&mut self, (id, stream): Place, part: Part) {
        // An app that has gone away needs no answer.
        if let Some(connection) = self.connections.get_mut(&id)
            && let Some(Talk::Answering(answer)) = connection.talks.get_mut(&stream)
        {
            answer.bytes.drain(..std::mem::take(&mut answer.sent));
            answer.bytes.extend(part.frame);
            answer.is_whole |= part.is_last;
        }
    }

    /// Sends an app what there is for it, as much as can be without waiting.
    fn speak(&mut self, id: u64, found: Option<&Found>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        while connection.write_on(id, &mut self.terminals, found) {
            match connection.flush() {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    connection.is_closed = true;
                    break;
                }
            }
        }
    }

    fn forget_closed(&mut self) {
        self.connections
            .retain(|_, connection| !connection.is_closed);
        for shown in &mut self.terminals {
            let is_shown = |viewer: &Viewer| {
                let connection = self.connections.get(&viewer.place.0);
                connection.is_some_and(|connection| connection.talks.contains_key(&viewer.place.1))
            };
            shown.viewer = shown.viewer.filter(is_shown);
        }
        let mut talks = self
            .connections
            .values()
            .flat_map(|connection| connection.talks.values());
        self.looking
            .set_wanted(talks.any(|talk| matches!(talk, Talk::Ports(_))));
    }
}

impl Talk {
    fn answering(result: Result<Reply, CallError>) -> Self {
        Self::Answering(Answer {
            bytes: calls::frame_of(result, &[]),
            sent: 0,
            is_whole: true,
            wanted: Arc::default(),
        })
    }
}

fn refusal(failure: Failure, message: String) -> Talk {
    Talk::answering(Err(CallError { failure, message }))
}

impl Connection {
    fn hear_watched(&mut self, stream: StreamId, mut look: Look, bytes: &[u8]) {
        look.input.push(bytes);
        loop {
            match look.input.next_frame() {
                Ok(Some(Frame { header, .. })) => look.watch.watch(&header.paths),
                Ok(None) => break,
                Err(_) => {
                    self.streams.reset(stream);
                    return;
                }
            }
        }
        self.talks.insert(stream, Talk::Watch(look));
    }

    /// Ends what a stream is for.
    fn end(&mut self, stream: StreamId) {
        self.talks.remove(&stream);
        self.streams.finish(stream);
    }

    /// Writes to the streams what there is for them; `false` when nothing is to be sent.
    fn write_on(&mut self, id: u64, terminals: &mut [Shown], found: Option<&Found>) -> bool {
        let streams = &mut self.streams;
        self.talks.retain(|stream, talk| match talk {
            Talk::Asking(_) => true,
            Talk::Answering(answer) => {
                let rest = answer.bytes.get(answer.sent..).unwrap_or_default();
                answer.sent += streams.send(*stream, rest);
                let is_sent = answer.is_whole && answer.sent == answer.bytes.len();
                if is_sent {
                    streams.finish(*stream);
                }
                // One that was reset is not sent.
                !is_sent && streams.is_open(*stream)
            }
            Talk::Watch(look) => {
                let sent = streams.send(*stream, &look.first);
                look.first.drain(..sent);
                // Room for a frame of news.
                while look.first.is_empty()
                    && streams.room(*stream) >= MOST_NEWS + 8
                    && let Some(news) = look.watch.news()
                {
                    streams.send(*stream, &encode(&news, &[]).unwrap_or_default());
                }
                streams.is_open(*stream)
            }
            Talk::Transfer(transfer) => {
                streams.consume(*stream, transfer.used());
                let room = streams.room(*stream);
                let is_over = transfer.speak(room, |bytes| {
                    streams.send(*stream, bytes);
                });
                if is_over {
                    streams.finish(*stream);
                }
                !is_over && streams.is_open(*stream)
            }
            Talk::Ports(told) => {
                told.go_on(streams, *stream, found);
                streams.is_open(*stream)
            }
            Talk::Forward(forward) => forward.outcome(streams, *stream) == Outcome::GoesOn,
            Talk::Terminal(view) => {
                let sent = streams.send(*stream, &view.first);
                view.first.drain(..sent);
                let mut terminals = terminals.iter_mut();
                let Some(shown) = terminals.find(|shown| shown.id == view.id) else {
                    return false;
                };
                if view.held > 0 && shown.terminal.takes_input() {
                    streams.consume(*stream, std::mem::take(&mut view.held));
                }
                let Some(viewer) = &mut shown.viewer else {
                    return false;
                };
                if !view.first.is_empty() || viewer.place != (id, *stream) {
                    return true;
                }
                // Room for a frame around a piece.
                while streams.room(*stream) >= 2 * PIECE {
                    let bytes = shown.terminal.output(viewer.sent, PIECE);
                    if bytes.is_empty() {
                        break;
                    }
                    viewer.sent += bytes.len() as u64;
                    streams.send(*stream, &encode(&Output::Bytes, &bytes).unwrap_or_default());
                }
                let Some(end) = shown.terminal.end(viewer.sent) else {
                    return true;
                };
                let end = encode(&Output::End(end), &[]).unwrap_or_default();
                let fits = streams.room(*stream) >= end.len();
                if fits {
                    streams.send(*stream, &end);
                    streams.finish(*stream);
                    shown.viewer = None;
                }
                !fits
            }
        });
        !self.out.is_empty() || self.streams.has_something_to_send()
    }

    /// Hands to the socket what it takes; `false` when it takes no more.
    fn flush(&mut self) -> io::Result<bool> {
        loop {
            if self.out.is_empty() {
                self.streams.fetch(&mut self.out, AT_ONCE);
            }
            if self.out.is_empty() {
                return Ok(true);
            }
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns whether there was nothing to read, or no room to write, just then.
pub(crate) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
