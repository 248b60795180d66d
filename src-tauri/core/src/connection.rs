//! The app's end of the connection to the agent in a container. It may break and heal while its session
//! stays ready: a [`Connection`] holds one [`Link`] at a time, hears whether that is alive, and makes
//! another when it is not, until it is closed. Calls, and terminals, are streams of it.
//!
//! It does not decide whether a session is over: that is the engine's to say, and `sessions` asks it. What
//! is asked of the agent is `files.rs`, `terminal.rs` and `provision.rs`; how it is written is `cove_agent`.

mod link;

use std::sync::Arc;
use std::time::Duration;

use cove_agent::AGENT_PATH;
use cove_agent::protocol::{COPY_LIMIT, Call, CallError, Decoder, Failure, Header, Hello, Reply};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::link::{Answers, Stream};
use self::link::{Link, LinkFailure};
use crate::engine::{ContainerState, Engine, ExecSpec};
use crate::error::Error;
use crate::words;

/// How long a call may take, with all that is tried again meanwhile.
const CALL_LIMIT: Duration = Duration::from_secs(4);
/// How long an answer may take that comes bit by bit.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than it works on a copy the agent may take to answer: it takes half of one back.
const TAKE_BACK: Duration = Duration::from_secs(30);
/// Bytes of a request for which a call may take a second more.
const BYTES_A_SECOND: usize = 4 << 20;
/// How long an agent may be silent before it has answered once. It has 10 s for a setup that says nothing.
const SETUP_SILENCE: Duration = Duration::from_secs(20);
/// How long a new link may take until the agent answers through it.
const LINK_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before a new link is tried again, at first and at most.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(1));

/// A connection to an agent that has answered once. Dropping it ends it; what the agent
/// keeps running, runs on.
#[derive(Debug)]
pub struct Connection {
    /// The link that works; `None` while there is none.
    link: watch::Receiver<Option<Arc<Link>>>,
    /// Whether the container's processes are held up: nobody answers then, and that says nothing.
    held_up: watch::Sender<bool>,
    closed: CancellationToken,
}

/// Why a call has no good answer.
#[derive(Debug)]
pub enum CallFailure {
    /// The agent answered that it failed.
    Refused(CallError),
    /// The connection broke before the answer: it may be done or not.
    Broken,
    /// There was no answer, or no connection, for so long.
    NoAnswer(Duration),
}

impl CallFailure {
    /// Returns the failure as that of the agent, whatever was asked.
    pub(crate) fn into_error(self) -> Error {
        Error::AgentUnavailable(match self {
            Self::Refused(error) => error.message,
            Self::Broken => {
                "the connection to the container broke; it may be done or not".to_owned()
            }
            Self::NoAnswer(limit) => format!("no answer within {} s", limit.as_secs()),
        })
    }
}

/// Connects to the agent in a container, and hears it say that the container is ready. From then on the connection makes itself anew when it breaks. While files are given to their
/// user, `preparing` hears how many have been looked at.
///
/// # Errors
/// [`Error::AgentUnavailable`] when there is no such answer.
pub(crate) async fn connect(
    engine: &Arc<dyn Engine>,
    container: &str,
    tracker: &TaskTracker,
    preparing: &(dyn Fn(u64) + Send + Sync),
) -> Result<(Connection, Hello), Error> {
    let way = Way {
        engine: Arc::clone(engine),
        container: container.to_owned(),
        tracker: tracker.clone(),
    };
    let (first, hello) = way.open(preparing).await?;
    let first = Arc::new(first);
    let (sender, link) = watch::channel(Some(Arc::clone(&first)));
    let held_up = watch::Sender::new(false);
    let closed = CancellationToken::new();
    let (until, held_up_now) = (closed.clone(), held_up.subscribe());
    tracker.spawn(async move {
        let keeping = way.keep(first, &sender, held_up_now);
        until.run_until_cancelled(keeping).await;
        // Whoever still waits for an answer hears that there is none.
        if let Some(link) = sender.send_replace(None) {
            link.close();
        }
    });
    let connection = Connection {
        link,
        held_up,
        closed,
    };
    Ok((connection, hello))
}

impl Connection {
    /// Asks the agent, and waits for its answer, over a new link if the one there is breaks. Only what
    /// changes nothing is asked twice.
    ///
    /// # Errors
    /// [`CallFailure`], after 4 s in which nothing came of an answer, and a second more for each 4 MiB of the body, or after
    /// a minute at the latest; a copy may take as long as the agent works on it.
    pub async fn call(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), CallFailure> {
        let more = u64::try_from(body.len() / BYTES_A_SECOND).unwrap_or(u64::MAX);
        let work = match call {
            Call::Copy { .. } => COPY_LIMIT + TAKE_BACK,
            _ => CALL_LIMIT,
        };
        let limit = work + Duration::from_secs(more);
        let begin = Instant::now();
        let last = Mutex::new(begin);
        let heard = || *last.lock() = Instant::now();
        let answer = self.call_until_answered(call, body, &heard);
        tokio::pin!(answer);
        let latest = begin + limit + ANSWER_LIMIT;
        loop {
            let deadline = latest.min(*last.lock() + limit);
            if let Ok(answer) = timeout_at(deadline, &mut answer).await {
                return answer;
            }
            if latest.min(*last.lock() + limit) == deadline {
                return Err(CallFailure::NoAnswer(limit));
            }
        }
    }

    async fn call_until_answered(
        &self,
        call: Call,
        body: &[u8],
        heard: &(dyn Fn() + Sync),
    ) -> Result<(Reply, Vec<u8>), CallFailure> {
        // Once: what ends the agent would end the next one too.
        let mut may_repeat = match call {
            Call::Hello { .. }
            | Call::List { .. }
            | Call::Read { .. }
            | Call::Find { .. }
            | Call::Search { .. }
            | Call::Processes
            | Call::Work
            | Call::Terminals
            | Call::AttachTerminal { .. }
            | Call::CloseTerminal { .. }
            | Call::TerminalPrograms { .. }
            | Call::ArrangeTerminals { .. }
            | Call::WatchPorts => true,
            Call::Write { .. }
            | Call::Create { .. }
            | Call::Move { .. }
            | Call::Copy { .. }
            | Call::Delete { .. }
            | Call::Restore { .. }
            | Call::OpenTerminal { .. }
            | Call::Watch
            | Call::Connect { .. }
            | Call::EndProcesses
            | Call::Pack { .. }
            | Call::Unpack { .. } => false,
        };
        loop {
            let link = self.a_link().await?;
            match link.call(&call, body, heard).await {
                Ok(answer) => return Ok(answer),
                Err(LinkFailure::Refused(error)) => return Err(CallFailure::Refused(error)),
                Err(LinkFailure::NotAsked) => {}
                Err(LinkFailure::Broken) if may_repeat => may_repeat = false,
                Err(LinkFailure::Broken) => return Err(CallFailure::Broken),
            }
        }
    }

    /// Begins what goes on after its answer, once: returns the answer and its body, the stream, and what follows on it. Waits for a link
    /// that works for as long as it takes.
    ///
    /// # Errors
    /// [`CallFailure`]; that nobody answers in time, only after something was asked.
    pub(crate) async fn converse<N: Header>(
        &self,
        call: &Call,
    ) -> Result<(Reply, Vec<u8>, Stream, Decoder<N>), CallFailure> {
        loop {
            let link = self.a_link().await?;
            let answer = timeout(CALL_LIMIT, link.converse(call)).await;
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(LinkFailure::Refused(error))) => return Err(CallFailure::Refused(error)),
                Ok(Err(LinkFailure::NotAsked)) => {}
                Ok(Err(LinkFailure::Broken)) => return Err(CallFailure::Broken),
                Err(_elapsed) => return Err(CallFailure::NoAnswer(CALL_LIMIT)),
            }
        }
    }

    /// Asks the agent something that it answers more than once. Nothing is asked again when the connection breaks.
    ///
    /// # Errors
    /// [`CallFailure::NoAnswer`] when there is no connection for 4 s.
    pub(crate) async fn stream(&self, call: Call) -> Result<Answers, CallFailure> {
        let link = timeout(CALL_LIMIT, self.a_link()).await;
        let link = link.unwrap_or(Err(CallFailure::NoAnswer(CALL_LIMIT)))?;
        match link.ask_for_many(&call).await {
            Ok(answers) => Ok(answers),
            Err(LinkFailure::Refused(error)) => Err(CallFailure::Refused(error)),
            Err(LinkFailure::NotAsked | LinkFailure::Broken) => Err(CallFailure::Broken),
        }
    }

    /// Begins what is bytes behind the call and its answer, and does not wait for that: see [`Stream::accepted`].
    ///
    /// # Errors
    /// [`CallFailure::NoAnswer`] when there is no connection for 4 s.
    pub(crate) async fn begin(&self, call: &Call) -> Result<Stream, CallFailure> {
        let link = timeout(CALL_LIMIT, self.a_link()).await;
        let link = link.unwrap_or(Err(CallFailure::NoAnswer(CALL_LIMIT)))?;
        match link.begin_raw(call).await {
            Ok(stream) => Ok(stream),
            Err(LinkFailure::Refused(error)) => Err(CallFailure::Refused(error)),
            Err(LinkFailure::NotAsked | LinkFailure::Broken) => Err(CallFailure::Broken),
        }
    }

    /// Waits for a link that works.
    async fn a_link(&self) -> Result<Arc<Link>, CallFailure> {
        let mut link = self.link.clone();
        let works = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.is_closed());
        tokio::select! {
            () = self.closed.cancelled() => Err(CallFailure::Broken),
            found = link.wait_for(works) => match found {
                Ok(link) => link.clone().ok_or(CallFailure::Broken),
                Err(_closed) => Err(CallFailure::Broken),
            },
        }
    }

    /// Waits until there is a link, or none.
    pub(crate) async fn until(&self, is_linked: bool) {
        let mut link = self.link.clone();
        let found = link.wait_for(|link| link.is_some() == is_linked).await;
        if found.map(drop).is_err() {
            // It was closed, which is another thing to wait for.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.link.borrow().is_some()
    }

    /// Takes note that the container's processes are held up, or go on.
    pub(crate) fn set_held_up(&self, held_up: bool) {
        self.held_up.send_replace(held_up);
    }

    /// Waits until the container's processes are not held up.
    pub(crate) async fn going_on(&self) {
        until_going_on(&mut self.held_up.subscribe()).await;
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until somebody has ended the connection; it never ends by itself.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// How to get to an agent.
struct Way {
    engine: Arc<dyn Engine>,
    container: String,
    tracker: TaskTracker,
}

impl Way {
    /// Runs the agent's end of the pipe, as root, who alone gets to the session's daemon, and hears that say that the container is ready.
    async fn open(&self, preparing: &(dyn Fn(u64) + Send + Sync)) -> Result<(Link, Hello), Error> {
        let spec = ExecSpec {
            command: vec![AGENT_PATH.to_owned(), "connect".to_owned()],
            user: "0:0".to_owned(),
            directory: "/".to_owned(),
            environment: Vec::new(),
        };
        let silent = |_elapsed| {
            let limit = SETUP_SILENCE.as_secs();
            Error::AgentUnavailable(format!("no answer within {limit} s"))
        };
        let exec = timeout(SETUP_SILENCE, self.engine.exec(&self.container, &spec));
        let link = Link::over(exec.await.map_err(silent)??, &self.tracker);
        let (mut last, mut heard) = (0, Instant::now());
        loop {
            let answer = timeout_at(heard + SETUP_SILENCE, link.hello()).await;
            let error = match answer.map_err(silent)? {
                Ok((Reply::Hello(hello), _)) => return Ok((link, hello)),
                Ok(_) => "it answered something else".to_owned(),
                Err(LinkFailure::Refused(CallError {
                    failure: Failure::Preparing { seen },
                    ..
                })) => {
                    if seen > last {
                        (last, heard) = (seen, Instant::now());
                        preparing(seen);
                    }
                    continue;
                }
                Err(LinkFailure::Refused(CallError { failure, message })) => match failure {
                    Failure::NoUser { user } => {
                        return Err(Error::ImageUserUnknown(words::tamed(&user)));
                    }
                    Failure::NoGroup { group } => {
                        return Err(Error::ImageGroupUnknown(words::tamed(&group)));
                    }
                    Failure::NoWorkspace => {
                        return Err(Error::WorkspaceUnusable(words::tamed(&message)));
                    }
                    _ => message,
                },
                Err(LinkFailure::NotAsked | LinkFailure::Broken) => {
                    let instead = words::tamed(&String::from_utf8_lossy(&link.instead()));
                    if instead.is_empty() {
                        "it ended before it answered".to_owned()
                    } else if instead.starts_with("usage: agent") {
                        "it is that of an earlier Cove; rebuild the session, which keeps its files"
                            .to_owned()
                    } else {
                        format!("instead of its answer came `{}`", instead.trim())
                    }
                }
            };
            return Err(Error::AgentUnavailable(error));
        }
    }

    /// Puts a new link in the place of each that breaks or falls silent.
    async fn keep(
        &self,
        mut link: Arc<Link>,
        place: &watch::Sender<Option<Arc<Link>>>,
        mut held_up: watch::Receiver<bool>,
    ) {
        loop {
            let pause = tokio::select! {
                () = link.closed() => {
                    log::info!("the connection to {} broke", self.container);
                    // A container that ends takes its agent with it before the engine knows: a command that is
                    // started in it just then can hold the engine up for seconds.
                    TRY_AGAIN.0
                }
                () = link.fell_silent(&mut held_up) => {
                    log::warn!("the agent in {} does not answer", self.container);
                    link.close();
                    Duration::ZERO
                }
            };
            place.send_replace(None);
            link = Arc::new(self.open_again(pause, &mut held_up).await);
            place.send_replace(Some(Arc::clone(&link)));
        }
    }

    async fn open_again(&self, mut pause: Duration, held_up: &mut watch::Receiver<bool>) -> Link {
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(TRY_AGAIN.0, TRY_AGAIN.1);
            until_going_on(held_up).await;
            match timeout(LINK_LIMIT, self.open_if_running()).await {
                Ok(Ok((link, _hello))) => return link,
                Ok(Err(error)) => log::debug!("no way to the agent in {}: {error}", self.container),
                Err(_elapsed) => log::debug!("no answer from the agent in {}", self.container),
            }
        }
    }

    async fn open_if_running(&self) -> Result<(Link, Hello), Error> {
        let container = self.engine.container(&self.container).await?;
        if container.is_none_or(|container| container.state != ContainerState::Running) {
            return Err(Error::AgentUnavailable(
                "its container does not run".to_owned(),
            ));
        }
        self.open(&|_| ()).await
    }
}

async fn until_going_on(held_up: &mut watch::Receiver<bool>) {
    // Without a sender the connection is being dropped, and this with it.
    let _ = held_up.wait_for(|held_up| !*held_up).await;
}
