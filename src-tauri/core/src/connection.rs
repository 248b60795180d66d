//! The app's end of the connection to the agent in a container. It may break and heal while its session
//! stays ready: a [`Connection`] holds one [`Link`] at a time, hears whether that is alive, and makes
//! another when it is not, until it is closed. Requests go out and answers come in, matched by id.
//!
//! It does not decide whether a session is over: that is the engine's to say, and `sessions` asks it. What
//! is asked of the agent is `files.rs` and `provision.rs`; how it is written is `cove_agent`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cove_agent::protocol::{
    COPY_LIMIT, Call, CallError, Decoder, Failure, Frame, Hello, Reply, Request, Response, VERSION,
    encode,
};
use cove_agent::{AGENT_PATH, WORKSPACE};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{ContainerState, Engine, Exec, ExecOutput, ExecSpec};
use crate::error::Error;
use crate::words;

/// Requests that may wait to be written.
const QUEUE: usize = 64;
/// Answers to one request that may wait to be taken.
const ANSWERS: usize = 4;
/// How long a call may take, with all that is tried again meanwhile.
const CALL_LIMIT: Duration = Duration::from_secs(4);
/// How much longer than it works on a copy the agent may take to answer: it takes half of one back.
const TAKE_BACK: Duration = Duration::from_secs(30);
/// Bytes of a request for which a call may take a second more.
const BYTES_A_SECOND: usize = 4 << 20;
/// How long an agent may be silent that was asked something, before it is asked whether it is there, and
/// how long it may take to say so.
const SILENCE: Duration = Duration::from_millis(1_200);
/// How long an agent may be silent before it has answered once. It has 10 s for a setup that says nothing.
const SETUP_SILENCE: Duration = Duration::from_secs(20);
/// How long it is asked why an agent does not answer.
const REASON_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes that are kept of what came instead of an answer.
const LONGEST_WORDS: usize = 300;
/// How often an agent that nobody asks anything is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a new link may take until the agent answers through it.
const LINK_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before a new link is tried again, at first and at most.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(2));

/// A connection to an agent that has answered once. Dropping it ends it, and the agent's server with it.
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

/// Asks the agent in a container as root why nobody answers as the image's user: an engine runs nothing at all as a
/// user whom the image does not have. Returns the reason, if that is one that the agent knows.
pub(crate) async fn reason_not_to_answer(
    engine: &Arc<dyn Engine>,
    container: &str,
    tracker: &TaskTracker,
) -> Option<Error> {
    let way = Way {
        engine: Arc::clone(engine),
        container: container.to_owned(),
        user: "0:0".to_owned(),
        tracker: tracker.clone(),
    };
    let asking = async {
        loop {
            match way.open(&|_| ()).await {
                Err(
                    reason @ (Error::ImageUserUnknown(_)
                    | Error::ImageGroupUnknown(_)
                    | Error::WorkspaceUnusable(_)),
                ) => return Some(reason),
                Ok(_) => return None,
                // An engine that has just refused a command may refuse the next one as well.
                Err(error) => log::info!("no answer as root in {container}: {error}"),
            }
            tokio::time::sleep(TRY_AGAIN.0).await;
        }
    };
    timeout(REASON_LIMIT, asking).await.unwrap_or_default()
}

/// Connects to the agent in a container, as the image's user, and hears it say that the container is
/// ready. From then on the connection makes itself anew when it breaks. While files are given to their
/// user, `preparing` hears how many have been looked at.
///
/// # Errors
/// [`Error::AgentUnavailable`] when there is no such answer.
pub(crate) async fn connect(
    engine: &Arc<dyn Engine>,
    container: &str,
    user: &str,
    tracker: &TaskTracker,
    preparing: &(dyn Fn(u64) + Send + Sync),
) -> Result<(Connection, Hello), Error> {
    let way = Way {
        engine: Arc::clone(engine),
        container: container.to_owned(),
        user: user.to_owned(),
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
    /// [`CallFailure`], after 4 s at the latest, and a second more for each 4 MiB of the body; a copy may take as long as
    /// the agent works on it.
    pub async fn call(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), CallFailure> {
        let more = u64::try_from(body.len() / BYTES_A_SECOND).unwrap_or(u64::MAX);
        let work = match call {
            Call::Copy { .. } => COPY_LIMIT + TAKE_BACK,
            _ => CALL_LIMIT,
        };
        let limit = work + Duration::from_secs(more);
        let answer = timeout(limit, self.call_until_answered(call, body)).await;
        answer.unwrap_or(Err(CallFailure::NoAnswer(limit)))
    }

    async fn call_until_answered(
        &self,
        call: Call,
        body: &[u8],
    ) -> Result<(Reply, Vec<u8>), CallFailure> {
        // Once: what ends the agent would end the next one too.
        let mut may_repeat = match call {
            Call::Hello { .. }
            | Call::List { .. }
            | Call::Read { .. }
            | Call::Find { .. }
            | Call::Search { .. }
            | Call::Processes
            | Call::Work => true,
            Call::Write { .. }
            | Call::Create { .. }
            | Call::Move { .. }
            | Call::Copy { .. }
            | Call::Delete { .. }
            | Call::Restore { .. }
            | Call::Cancel { .. }
            | Call::EndProcesses => false,
        };
        loop {
            let link = self.a_link().await?;
            match link.call(call.clone(), body).await {
                Ok(answer) => return Ok(answer),
                Err(LinkFailure::Refused(error)) => return Err(CallFailure::Refused(error)),
                Err(LinkFailure::NotAsked) => {}
                Err(LinkFailure::Broken) if may_repeat => may_repeat = false,
                Err(LinkFailure::Broken) => return Err(CallFailure::Broken),
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
        link.ask_for_many(call).await
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

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
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
    user: String,
    tracker: TaskTracker,
}

impl Way {
    /// Runs a server of the agent, and hears it say that the container is ready.
    async fn open(&self, preparing: &(dyn Fn(u64) + Send + Sync)) -> Result<(Link, Hello), Error> {
        let spec = ExecSpec {
            command: vec![AGENT_PATH.to_owned(), "serve".to_owned()],
            user: self.user.clone(),
            directory: WORKSPACE.to_owned(),
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
                    let instead = words::tamed(&String::from_utf8_lossy(&link.instead.lock()));
                    if instead.is_empty() {
                        "it ended before it answered".to_owned()
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
                () = link.closed.cancelled() => {
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

/// One server of an agent, and the streams to it.
#[derive(Debug)]
struct Link {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    /// Bytes that have arrived.
    arrived: Arc<AtomicU64>,
    /// What came instead of an answer: where an engine cannot start the server, it says so there.
    instead: Arc<Mutex<Vec<u8>>>,
    /// Somebody waits for an answer and hears nothing.
    doubted: Notify,
    closed: CancellationToken,
}

type Answer = Result<(Reply, Vec<u8>), CallError>;

/// The requests that have no answer yet; `None` when there will be no more answers.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, Asker>>>);

/// Who waits for an answer, or for several.
#[derive(Debug)]
enum Asker {
    Once(oneshot::Sender<Answer>),
    Many(mpsc::Sender<Answer>),
}

/// The answers to a request that has several. Dropped, it ends what they are about.
#[derive(Debug)]
pub(crate) struct Answers {
    link: Arc<Link>,
    id: u64,
    arriving: mpsc::Receiver<Answer>,
}

impl Answers {
    /// Waits for the next answer; `None` behind the last, and when the connection broke.
    pub(crate) async fn next(&mut self) -> Option<Answer> {
        loop {
            match timeout(SILENCE, self.arriving.recv()).await {
                Ok(answer) => return answer,
                Err(_elapsed) => self.link.doubted.notify_one(),
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if self.link.waiting.remove(self.id).is_none() {
            return;
        }
        let cancel = Request {
            id: self.link.next_id.fetch_add(1, Ordering::Relaxed),
            call: Call::Cancel { search: self.id },
        };
        if let Ok(frame) = encode(&cancel, &[]) {
            // Where it does not get there, the agent goes on to the end for nobody.
            let _ = self.link.requests.try_send(frame);
        }
    }
}

/// Why a link has no good answer.
#[derive(Debug)]
enum LinkFailure {
    /// The agent answered that it failed.
    Refused(CallError),
    /// It was closed already.
    NotAsked,
    /// It broke before the answer.
    Broken,
}

impl Link {
    fn over(exec: Exec, tracker: &TaskTracker) -> Self {
        let Exec {
            mut input,
            mut output,
            ..
        } = exec;
        let (requests, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let arrived = Arc::new(AtomicU64::new(0));
        let instead = Arc::new(Mutex::new(Vec::new()));
        let closed = CancellationToken::new();

        let until = closed.clone();
        tracker.spawn(async move {
            let sending = async {
                while let Some(frame) = queue.recv().await {
                    if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
                        break;
                    }
                }
            };
            // A server that was stopped does not read, so that a write may never end.
            until.run_until_cancelled(sending).await;
            until.cancel();
        });

        let (answers, counted, until) =
            (Arc::clone(&waiting), Arc::clone(&arrived), closed.clone());
        let not_answers = Arc::clone(&instead);
        tracker.spawn(async move {
            let mut decoder = Decoder::<Response>::new();
            while let Some(Some(Ok(piece))) = until.run_until_cancelled(output.next()).await {
                match piece {
                    ExecOutput::Out(bytes) => {
                        counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        decoder.push(&bytes);
                        if !answers.take_all(&mut decoder).await {
                            let length = bytes.len().min(LONGEST_WORDS);
                            *not_answers.lock() = bytes.slice(..length).to_vec();
                            break;
                        }
                    }
                    ExecOutput::Err(bytes) => {
                        log::warn!("agent: {}", String::from_utf8_lossy(&bytes).trim_end());
                    }
                }
            }
            until.cancel();
            answers.close();
        });

        Self {
            requests,
            waiting,
            next_id: AtomicU64::new(1),
            arrived,
            instead,
            doubted: Notify::new(),
            closed,
        }
    }

    /// Asks the agent, and waits for its answer for as long as the link holds.
    async fn call(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), LinkFailure> {
        let answer = self.ask(call, body);
        tokio::pin!(answer);
        loop {
            match timeout(SILENCE, &mut answer).await {
                Ok(answer) => return answer,
                Err(_elapsed) => self.doubted.notify_one(),
            }
        }
    }

    async fn hello(&self) -> Result<(Reply, Vec<u8>), LinkFailure> {
        self.ask(Call::Hello { protocol: VERSION }, &[]).await
    }

    async fn ask_for_many(self: Arc<Self>, call: Call) -> Result<Answers, CallFailure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Request { id, call }, &[]).map_err(|error| {
            CallFailure::Refused(CallError {
                failure: Failure::TooLarge,
                message: error.to_string(),
            })
        })?;
        let (sender, arriving) = mpsc::channel(ANSWERS);
        if !self.waiting.add(id, Asker::Many(sender)) {
            return Err(CallFailure::Broken);
        }
        let answers = Answers {
            link: self,
            id,
            arriving,
        };
        match answers.link.requests.send(frame).await {
            Ok(()) => Ok(answers),
            Err(_closed) => Err(CallFailure::Broken),
        }
    }

    async fn ask(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), LinkFailure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Request { id, call }, body).map_err(|error| {
            LinkFailure::Refused(CallError {
                failure: Failure::TooLarge,
                message: error.to_string(),
            })
        })?;
        let (sender, answer) = oneshot::channel();
        if !self.waiting.add(id, Asker::Once(sender)) {
            return Err(LinkFailure::NotAsked);
        }
        // Whoever gives up waits no more: a late answer belongs to nobody.
        let _waiting = Forget {
            waiting: &self.waiting,
            id,
        };
        if self.requests.send(frame).await.is_err() {
            return Err(LinkFailure::NotAsked);
        }
        match answer.await {
            Ok(answer) => answer.map_err(LinkFailure::Refused),
            Err(_closed) => Err(LinkFailure::Broken),
        }
    }

    /// Returns when the agent, whose processes are not held up, does not say any more that it is there.
    async fn fell_silent(&self, held_up: &mut watch::Receiver<bool>) {
        loop {
            // With or without a doubt, it is asked.
            let _ = timeout(HEARTBEAT, self.doubted.notified()).await;
            until_going_on(held_up).await;
            let before = self.arrived.load(Ordering::Relaxed);
            let answer = timeout(SILENCE, self.hello()).await;
            let has_spoken = self.arrived.load(Ordering::Relaxed) != before;
            if answer.is_err() && !has_spoken && !*held_up.borrow() {
                return;
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes a request out of those that wait, when it is dropped.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.remove(self.id);
    }
}

impl Waiting {
    /// Adds a request, unless there will be no more answers.
    fn add(&self, id: u64, asker: Asker) -> bool {
        let mut waiting = self.0.lock();
        waiting
            .as_mut()
            .map(|open| open.insert(id, asker))
            .is_some()
    }

    fn remove(&self, id: u64) -> Option<Asker> {
        self.0.lock().as_mut().and_then(|open| open.remove(&id))
    }

    /// Returns who waits for this answer; who waits for more is still there afterwards.
    fn asker(&self, id: u64, more: bool) -> Option<Asker> {
        let mut waiting = self.0.lock();
        let open = waiting.as_mut()?;
        match open.get(&id) {
            Some(Asker::Many(sender)) if more => Some(Asker::Many(sender.clone())),
            _ => open.remove(&id),
        }
    }

    /// Hands out all answers that have arrived; `false` when the stream makes no sense. Who asked for several and does not take
    /// them holds up all others.
    async fn take_all(&self, decoder: &mut Decoder<Response>) -> bool {
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame { header, body })) => {
                    let answer = header.result.map(|reply| (reply, body));
                    // An asker that has gone away needs no answer.
                    match self.asker(header.id, header.more) {
                        Some(Asker::Once(sender)) => drop(sender.send(answer)),
                        Some(Asker::Many(sender)) => drop(sender.send(answer).await),
                        None => {}
                    }
                }
                Ok(None) => return true,
                Err(error) => {
                    log::error!("the agent's answer cannot be read: {error}");
                    return false;
                }
            }
        }
    }

    fn close(&self) {
        self.0.lock().take();
    }
}
