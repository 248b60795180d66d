//! The work on calls, each of which may take long.
//!
//! Eight threads work on them, so that a slow one does not hold up the others. They are made at the
//! start, with a stack of their own size: later a session's own processes may have used up its process limit,
//! and files must stay usable then. If that is so at the start already, as many as can be made do, or none and
//! the caller itself. What runs when the app goes away is finished: a write is never cut off.
//!
//! What was deleted long ago is removed when the workspace is first listed, and after each delete, when the answer is out.
//! So is, once, what a daemon left in half that was killed.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{getegid, geteuid};

use crate::protocol::{self, Call, CallError, Failure, Frame, Hello, Reply, Response};
use crate::readiness::NotReady;
use crate::search::Query;
use crate::tree::UNFILLED;
use crate::workspace::{Wanted, Workspace};
use crate::{accounts, processes, readiness};

/// How many calls are worked on at the same time.
const AT_ONCE: usize = 8;

/// The stack of each of the threads. An image's `RUST_MIN_STACK` does not count.
const STACK: usize = 512 << 10;

/// How often a search that finds nothing says that it goes on.
const GOES_ON: Duration = Duration::from_millis(500);

/// How long a hello waits for a setup that says nothing.
const SETUP_LIMIT: Duration = Duration::from_secs(10);

/// A frame that answers a call.
pub(super) struct Part {
    pub(super) frame: Vec<u8>,
    /// Whether none follows.
    pub(super) is_last: bool,
}

/// Takes what answers a call.
pub(super) struct Answering {
    pub(super) say: Box<dyn Fn(Part) + Send + Sync>,
    /// Whether anybody waits for it.
    pub(super) wanted: Arc<AtomicBool>,
}

/// Those who work on calls.
pub(super) struct Calls {
    agent: Arc<Agent>,
    queue: Option<mpsc::Sender<(Frame<Call>, Answering)>>,
}

impl Calls {
    /// Makes the threads, or as many as can be made.
    pub(super) fn new(workspace: Result<Arc<Workspace>, CallError>, directory: PathBuf) -> Self {
        let agent = Arc::new(Agent {
            workspace,
            directory,
            has_listed: AtomicBool::new(false),
        });
        let (sender, queue) = mpsc::channel::<(Frame<Call>, Answering)>();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..AT_ONCE).map_while(|_| {
            let (agent, queue) = (Arc::clone(&agent), Arc::clone(&queue));
            let worker = thread::Builder::new().stack_size(STACK);
            let next = move || lock(&queue).recv().ok();
            // It ends with the queue.
            let worker = worker.spawn(move || {
                while let Some((frame, answering)) = next() {
                    agent.work(frame, &answering);
                }
            });
            worker.ok()
        });
        let queue = (workers.count() > 0).then_some(sender);
        Self { agent, queue }
    }

    /// Returns the workspace, or why there is none.
    pub(super) fn workspace(&self) -> Result<Arc<Workspace>, CallError> {
        self.agent.workspace.clone()
    }

    /// Gives memory back that nobody has needed for a while. An app that is connected says that it is there every few
    /// seconds, which leads here.
    pub(super) fn rest(&self) {
        if let Ok(workspace) = &self.agent.workspace {
            workspace.forget_names();
        }
    }

    /// Lets somebody work on a call. How many may wait is the caller's to say.
    pub(super) fn begin(&self, frame: Frame<Call>, answering: Answering) {
        match &self.queue {
            // The threads end only after this.
            Some(queue) => drop(queue.send((frame, answering))),
            None => self.agent.work(frame, &answering),
        }
    }
}

struct Agent {
    /// The failure is answered to every call: the app learns it from the first.
    workspace: Result<Arc<Workspace>, CallError>,
    directory: PathBuf,
    /// Whether the workspace was listed already.
    has_listed: AtomicBool,
}

impl Agent {
    fn work(&self, frame: Frame<Call>, answering: &Answering) {
        let is_first_list = matches!(frame.header, Call::List { .. })
            && !self.has_listed.swap(true, Ordering::Relaxed);
        let leads_to_trash = is_first_list || matches!(frame.header, Call::Delete { .. });
        let result = match frame.header {
            Call::Search { query, limit } => self.search(&query, limit, answering),
            call => self.answer(call, &frame.body),
        };
        let (result, body) = match result {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Vec::new()),
        };
        (answering.say)(Part {
            frame: frame_of(result, &body),
            is_last: true,
        });
        if let (true, Ok(workspace)) = (leads_to_trash, &self.workspace) {
            workspace.empty_trash(SystemTime::now());
        }
        if let (true, Ok(workspace)) = (is_first_list, &self.workspace) {
            workspace.remove_halves();
        }
    }

    /// Says what a search finds while it goes on; returns its last answer.
    fn search(
        &self,
        query: &Query,
        limit: u32,
        Answering { say, wanted }: &Answering,
    ) -> Result<(Reply, Vec<u8>), CallError> {
        let mut said = Instant::now();
        let workspace = Result::as_ref(&self.workspace).map_err(Clone::clone)?;
        let searched = workspace.search(query, limit, |files| {
            if !wanted.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            if !files.is_empty() || said.elapsed() >= GOES_ON {
                said = Instant::now();
                let found = Reply::Search {
                    files,
                    searched: None,
                };
                say(Part {
                    frame: frame_of(Ok(found), &[]),
                    is_last: false,
                });
            }
            ControlFlow::Continue(())
        })?;
        let last = Reply::Search {
            files: Vec::new(),
            searched: Some(searched),
        };
        Ok((last, Vec::new()))
    }

    fn answer(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), CallError> {
        let workspace = Result::as_ref(&self.workspace).map_err(Clone::clone);
        let reply = match call {
            Call::Hello { protocol } => Reply::Hello(self.hello(protocol)?),
            Call::List { path, limit } => {
                let (entries, truncated) = workspace?.list(&path, limit)?;
                Reply::List { entries, truncated }
            }
            Call::Read {
                path,
                offset,
                limit,
            } => {
                let piece = workspace?.read(&path, offset, limit)?;
                let reply = Reply::Read {
                    size: piece.size,
                    truncated: piece.truncated,
                    revision: piece.revision,
                };
                return Ok((reply, piece.content));
            }
            Call::Write { path, condition } => Reply::Write {
                revision: workspace?.write(&path, &condition, body)?,
            },
            Call::Create { path, entry } => {
                workspace?.create(&path, entry)?;
                Reply::Create
            }
            Call::Move { from, to } => {
                workspace?.rename(&from, &to)?;
                Reply::Move
            }
            Call::Copy {
                from,
                to,
                or_like_it,
            } => Reply::Copy {
                path: workspace?.copy(&from, &to, or_like_it)?,
            },
            Call::Delete { paths } => Reply::Delete {
                trash: workspace?.delete(&paths)?,
            },
            Call::Restore { trash } => {
                workspace?.restore(&trash)?;
                Reply::Restore
            }
            Call::Find {
                query,
                limit,
                fresh,
                patience_ms,
            } => {
                let wanted = Wanted {
                    limit,
                    fresh,
                    patience: Duration::from_millis(patience_ms.into()),
                };
                workspace?.find(&query, wanted)
            }
            Call::Search { .. } => {
                return Err(CallError {
                    failure: Failure::Invalid,
                    message: "a search has more than one answer".to_owned(),
                });
            }
            Call::Processes => processes::count(),
            Call::Work => processes::work(),
            Call::EndProcesses => processes::end(),
            Call::Terminals
            | Call::OpenTerminal { .. }
            | Call::AttachTerminal { .. }
            | Call::CloseTerminal { .. }
            | Call::TerminalPrograms { .. }
            | Call::ArrangeTerminals { .. }
            | Call::Watch
            | Call::Pack { .. }
            | Call::Unpack { .. }
            | Call::WatchPorts
            | Call::Connect { .. } => {
                return Err(CallError {
                    failure: Failure::Invalid,
                    message: "it has a stream of its own".to_owned(),
                });
            }
        };
        Ok((reply, Vec::new()))
    }

    fn hello(&self, protocol: u32) -> Result<Hello, CallError> {
        if protocol != protocol::VERSION {
            return Err(CallError {
                failure: Failure::UnsupportedProtocol {
                    protocol: protocol::VERSION,
                },
                message: format!(
                    "the agent speaks protocol {}, not {protocol}",
                    protocol::VERSION
                ),
            });
        }
        readiness::wait(&self.directory, SETUP_LIMIT).map_err(|reason| match reason {
            NotReady::Failed(reason) => reason,
            NotReady::At(seen) => CallError {
                failure: Failure::Preparing { seen },
                message: format!("{seen} files have been looked at"),
            },
        })?;
        if self.directory.join(UNFILLED).exists() {
            return Err(readiness::not_ready(
                "its files have not come in whole; delete the session and make it again".to_owned(),
            ));
        }
        let workspace = Result::as_ref(&self.workspace)
            .map_err(|error| readiness::not_ready(error.message.clone()))?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Ok(Hello {
            protocol: protocol::VERSION,
            agent_version: crate::VERSION.to_owned(),
            uid,
            gid,
            user: accounts::account_of(uid, &accounts::passwd()).map(|account| account.name),
            workspace_writable: workspace.is_writable(),
        })
    }
}

/// Returns the frame of an answer.
pub(super) fn frame_of(result: Result<Reply, CallError>, body: &[u8]) -> Vec<u8> {
    protocol::encode(&Response { result }, body).unwrap_or_else(|error| {
        let result = Err(CallError {
            failure: Failure::TooLarge,
            message: error.to_string(),
        });
        protocol::encode(&Response { result }, &[]).unwrap_or_default()
    })
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::protocol::{Decoder, WriteCondition};

    /// Makes calls on an empty workspace, and returns how each was answered, in the order of the calls.
    fn check(requests: Vec<(Call, &[u8])>) -> Vec<Result<Reply, CallError>> {
        let workspace = tempfile::tempdir().unwrap();
        let nowhere = PathBuf::from("/nonexistent");
        let calls = Calls::new(Workspace::open(workspace.path()).map(Arc::new), nowhere);
        let (sender, answers) = mpsc::channel();
        let count = requests.len();
        for (number, (header, body)) in requests.into_iter().enumerate() {
            let sender = sender.clone();
            let frame = Frame {
                header,
                body: body.to_vec(),
            };
            let say = move |part: Part| sender.send((number, part.frame)).unwrap();
            let answering = Answering {
                say: Box::new(say),
                wanted: Arc::new(AtomicBool::new(true)),
            };
            calls.begin(frame, answering);
        }
        let mut answers: Vec<_> = answers.iter().take(count).collect();
        answers.sort();
        answers
            .into_iter()
            .zip(0..)
            .map(|((number, bytes), expected)| {
                assert_eq!(number, expected);
                let mut decoder = Decoder::<Response>::new();
                decoder.push(&bytes);
                let frame = decoder.next_frame().unwrap().unwrap();
                assert!(decoder.is_between_frames());
                frame.header.result
            })
            .collect()
    }

    #[test]
    fn every_call_is_answered_once_even_beyond_the_threads() {
        let requests = (0..100)
            .map(|number| {
                let path = format!("/workspace/{number}");
                (
                    Call::Write {
                        path,
                        condition: WriteCondition::Anything,
                    },
                    b"x".as_slice(),
                )
            })
            .collect();
        let answers = check(requests);
        assert_eq!(answers.len(), 100);
        assert!(answers.iter().all(Result::is_ok));
    }

    #[test]
    fn another_protocol_is_refused_with_ours() {
        let answers = check(vec![(Call::Hello { protocol: 99 }, b"")]);
        let error = answers.into_iter().next().unwrap().unwrap_err();
        assert_eq!(
            error.failure,
            Failure::UnsupportedProtocol {
                protocol: protocol::VERSION
            }
        );
        assert_eq!(error.message, "the agent speaks protocol 2, not 99");
    }

    #[test]
    fn a_search_is_answered_until_it_is_over_or_nobody_wants_it() {
        let workspace = tempfile::tempdir().unwrap();
        std::fs::write(workspace.path().join("a"), "a word").unwrap();
        let calls = Calls::new(
            Workspace::open(workspace.path()).map(Arc::new),
            PathBuf::from("/nonexistent"),
        );
        let search = |is_wanted: bool| {
            let query = Query {
                text: "word".to_owned(),
                ..Query::default()
            };
            let (sender, parts) = mpsc::channel();
            let frame = Frame {
                header: Call::Search { query, limit: 10 },
                body: Vec::new(),
            };
            let answering = Answering {
                say: Box::new(move |part| sender.send(part).unwrap()),
                wanted: Arc::new(AtomicBool::new(is_wanted)),
            };
            calls.begin(frame, answering);
            // It ends with whoever says it.
            let parts: Vec<Part> = parts.iter().collect();
            let (mut found, mut searched) = (Vec::new(), None);
            for (index, part) in parts.iter().enumerate() {
                assert_eq!(part.is_last, index + 1 == parts.len());
                let mut decoder = Decoder::<Response>::new();
                decoder.push(&part.frame);
                match decoder.next_frame().unwrap().unwrap().header.result {
                    Ok(Reply::Search {
                        files,
                        searched: now,
                    }) => {
                        assert_eq!(now.is_some(), part.is_last);
                        found.extend(files.into_iter().map(|file| file.path));
                        searched = now;
                    }
                    other => panic!("{other:?}"),
                }
            }
            (found, searched.map(|searched| searched.files))
        };
        assert_eq!(search(true), (vec!["/workspace/a".to_owned()], Some(1)));
        assert_eq!(search(false).0, Vec::<String>::new());
    }

    #[test]
    fn a_missing_workspace_is_told_by_every_call() {
        let nowhere = Path::new("/nonexistent");
        let agent = Agent {
            workspace: Workspace::open(nowhere).map(Arc::new),
            directory: nowhere.to_owned(),
            has_listed: AtomicBool::new(false),
        };
        let list = Call::List {
            path: "/workspace".into(),
            limit: 1,
        };
        let error = agent.answer(list, &[]).unwrap_err();
        assert_eq!(error.failure, Failure::NotFound);
    }
}
