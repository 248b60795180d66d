//! The app's end of the connection to the agent in a container: requests out, answers in, matched
//! by id. What is asked is `files.rs` and `provision.rs`; how it is written is `cove_agent`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cove_agent::protocol::{
    Call, CallError, Decoder, Failure, Frame, Hello, Reply, Request, Response, VERSION, encode,
};
use cove_agent::{AGENT_PATH, WORKSPACE};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Exec, ExecOutput, ExecSpec};
use crate::error::Error;

/// Requests that may wait to be written.
const QUEUE: usize = 64;

/// An agent that has answered. Dropping it ends the connection, and the agent's server with it.
#[derive(Debug)]
pub struct Agent {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    closed: CancellationToken,
}

type Answer = Result<(Reply, Vec<u8>), CallError>;

/// The requests that have no answer yet; `None` when there will be no more answers.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>);

/// Why a call has no good answer.
#[derive(Debug)]
pub enum CallFailure {
    /// The agent answered that it failed.
    Refused(CallError),
    /// The connection ended first.
    Disconnected,
}

/// Runs the agent's server in a container as the image's user, and hears it say that the container
/// is ready.
///
/// # Errors
/// [`Error::AgentUnavailable`] when there is no such answer.
pub(crate) async fn connect(
    engine: &dyn Engine,
    container: &str,
    user: &str,
    tracker: &TaskTracker,
) -> Result<(Agent, Hello), Error> {
    let spec = ExecSpec {
        command: vec![AGENT_PATH.to_owned(), "serve".to_owned()],
        user: user.to_owned(),
        directory: WORKSPACE.to_owned(),
        environment: Vec::new(),
    };
    let exec = engine.exec(container, &spec).await?;
    let agent = Agent::over(exec, tracker);
    match agent.call(Call::Hello { protocol: VERSION }, &[]).await {
        Ok((Reply::Hello(hello), _)) => Ok((agent, hello)),
        Ok(_) => Err(Error::AgentUnavailable(
            "it answered something else".to_owned(),
        )),
        Err(CallFailure::Refused(error)) => Err(Error::AgentUnavailable(error.message)),
        Err(CallFailure::Disconnected) => Err(Error::AgentUnavailable(
            "it ended before it answered".to_owned(),
        )),
    }
}

impl Agent {
    fn over(exec: Exec, tracker: &TaskTracker) -> Self {
        let Exec {
            mut input,
            mut output,
            ..
        } = exec;
        let (requests, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let closed = CancellationToken::new();

        let until = closed.clone();
        tracker.spawn(async move {
            while let Some(Some(frame)) = until.run_until_cancelled(queue.recv()).await {
                if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
                    break;
                }
            }
            until.cancel();
        });

        let (answers, until) = (Arc::clone(&waiting), closed.clone());
        tracker.spawn(async move {
            let mut decoder = Decoder::<Response>::new();
            while let Some(Some(Ok(piece))) = until.run_until_cancelled(output.next()).await {
                match piece {
                    ExecOutput::Out(bytes) => {
                        decoder.push(&bytes);
                        if !answers.take_all(&mut decoder) {
                            break;
                        }
                    }
                    ExecOutput::Err(bytes) => {
                        log::warn!("agent: {}", String::from_utf8_lossy(&bytes).trim_end());
                    }
                }
            }
            answers.close();
            until.cancel();
        });

        Self {
            requests,
            waiting,
            next_id: AtomicU64::new(1),
            closed,
        }
    }

    /// Asks the agent, and waits for its answer.
    ///
    /// # Errors
    /// [`CallFailure`]: the agent refused, or is gone.
    pub async fn call(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), CallFailure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Request { id, call }, body).map_err(|error| {
            CallFailure::Refused(CallError {
                failure: Failure::TooLarge,
                message: error.to_string(),
            })
        })?;
        let (sender, answer) = oneshot::channel();
        if !self.waiting.add(id, sender) {
            return Err(CallFailure::Disconnected);
        }
        if self.requests.send(frame).await.is_err() {
            return Err(CallFailure::Disconnected);
        }
        match answer.await {
            Ok(answer) => answer.map_err(CallFailure::Refused),
            Err(_closed) => Err(CallFailure::Disconnected),
        }
    }

    /// Waits until the connection has ended: the container stopped, or the engine is gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Waiting {
    /// Adds a request, unless there will be no more answers.
    fn add(&self, id: u64, sender: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.0.lock();
        waiting
            .as_mut()
            .map(|open| open.insert(id, sender))
            .is_some()
    }

    /// Hands out all answers that have arrived; `false` when the stream makes no sense.
    fn take_all(&self, decoder: &mut Decoder<Response>) -> bool {
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame { header, body })) => {
                    let mut waiting = self.0.lock();
                    let sender = waiting.as_mut().and_then(|open| open.remove(&header.id));
                    if let Some(sender) = sender {
                        // An asker that has gone away needs no answer.
                        let _ = sender.send(header.result.map(|reply| (reply, body)));
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
