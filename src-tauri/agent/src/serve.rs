//! `agent serve`: answers the app's requests on stdin and stdout, as the image's user.
//!
//! Eight threads work on requests, so that a slow one does not hold up the others. They are made at the
//! start, with a stack of their own size: later a session's own processes may have used up its process limit,
//! and files must stay usable then. If that is so at the start already, as many as can be made do, or none and
//! the reader itself. What runs when the app goes away is finished first: a write is never cut off.
//!
//! What was deleted long ago is removed when the workspace is first listed, and after each delete, when the answer is out.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit};

use crate::protocol::{
    self, Call, CallError, Decoder, Failure, Frame, Hello, ProtocolError, Reply, Request, Response,
};
use crate::readiness::NotReady;
use crate::search::Query;
use crate::tree::UNFILLED;
use crate::workspace::{Wanted, Workspace};
use crate::{accounts, processes, readiness};

/// How many requests are worked on at the same time.
const AT_ONCE: usize = 8;

/// The stack of each of the threads. An image's `RUST_MIN_STACK` does not count.
const STACK: usize = 512 << 10;

/// How often a search that finds nothing says that it goes on.
const GOES_ON: Duration = Duration::from_millis(500);

/// How long a hello waits for a setup that says nothing.
const SETUP_LIMIT: Duration = Duration::from_secs(10);

/// Serves until stdin ends. A stream that breaks the protocol ends with code 2.
#[must_use]
pub fn run(directory: &Path, workspace: &Path) -> ExitCode {
    // A path holds one descriptor for each of its directories; a limit that cannot be raised is met only
    // by paths of a depth that nobody has.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let agent = Agent {
        workspace: Workspace::open(workspace),
        directory,
        has_listed: AtomicBool::new(false),
        searches: Mutex::default(),
    };
    match agent.serve(io::stdin().lock(), io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The app reads it from the exec's stderr; without one there is nobody to tell.
            let _ = writeln!(io::stderr(), "cove-agent: {error}");
            ExitCode::from(2)
        }
    }
}

struct Agent<'a> {
    /// The failure is answered to every call: the app learns it from the first.
    workspace: Result<Workspace, CallError>,
    directory: &'a Path,
    /// Whether the workspace was listed already.
    has_listed: AtomicBool,
    /// The searches that are wanted.
    searches: Mutex<HashSet<u64>>,
}

impl Agent<'_> {
    fn serve(&self, input: impl Read, output: impl Write + Send) -> Result<(), ProtocolError> {
        let output = Mutex::new(output);
        let (requests, queue) = mpsc::sync_channel::<Frame<Request>>(AT_ONCE);
        let queue = Mutex::new(queue);
        let work = |frame: Frame<Request>| {
            let leads_to_trash = match frame.header.call {
                Call::Delete { .. } => true,
                Call::List { .. } => !self.has_listed.swap(true, Ordering::Relaxed),
                _ => false,
            };
            let say = |response: &[u8]| {
                let mut output = lock(&output);
                // If the app no longer listens, stdin ends too.
                let _ = output.write_all(response).and_then(|()| output.flush());
            };
            match frame.header.call {
                Call::Search { query, limit } => self.search(frame.header.id, &query, limit, say),
                _ => say(&self.respond(frame)),
            }
            if let (true, Ok(workspace)) = (leads_to_trash, &self.workspace) {
                workspace.empty_trash(SystemTime::now());
            }
        };
        thread::scope(|scope| {
            let work = &work;
            let workers = (0..AT_ONCE).map_while(|_| {
                let next = || lock(&queue).recv().ok();
                let worker = thread::Builder::new().stack_size(STACK);
                let worker = worker.spawn_scoped(scope, move || {
                    while let Some(frame) = next() {
                        work(frame);
                    }
                });
                worker.ok()
            });
            let workers = workers.count();
            // The queue ends with `requests`, and with it the workers.
            let requests = requests;
            each_request(input, |frame| {
                // Not queued: what is to be ended may be what holds the queue up.
                match frame.header.call {
                    Call::Cancel { search } => {
                        lock(&self.searches).remove(&search);
                        return;
                    }
                    Call::Search { .. } => {
                        lock(&self.searches).insert(frame.header.id);
                    }
                    _ => {}
                }
                if workers == 0 {
                    work(frame);
                } else {
                    // The queue ends only after this.
                    let _ = requests.send(frame);
                }
            })
        })
    }

    fn search(&self, id: u64, query: &Query, limit: u32, say: impl Fn(&[u8]) + Sync) {
        let is_wanted = || lock(&self.searches).contains(&id);
        let mut said = Instant::now();
        let result = self.workspace.as_ref().map_err(Clone::clone);
        let result = result.and_then(|workspace| {
            workspace.search(query, limit, |files| {
                if !is_wanted() {
                    return ControlFlow::Break(());
                }
                if !files.is_empty() || said.elapsed() >= GOES_ON {
                    said = Instant::now();
                    let found = Reply::Search {
                        files,
                        searched: None,
                    };
                    say(&response(id, true, Ok(found), &[]));
                }
                ControlFlow::Continue(())
            })
        });
        lock(&self.searches).remove(&id);
        let result = result.map(|searched| Reply::Search {
            files: Vec::new(),
            searched: Some(searched),
        });
        say(&response(id, false, result, &[]));
    }

    fn respond(
        &self,
        Frame {
            header: Request { id, call },
            body,
        }: Frame<Request>,
    ) -> Vec<u8> {
        let (result, body) = match self.answer(call, &body) {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Vec::new()),
        };
        response(id, false, result, &body)
    }

    fn answer(&self, call: Call, body: &[u8]) -> Result<(Reply, Vec<u8>), CallError> {
        let workspace = self.workspace.as_ref().map_err(Clone::clone);
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
            Call::Search { .. } | Call::Cancel { .. } => {
                return Err(CallError {
                    failure: Failure::Invalid,
                    message: "a search has more than one answer".to_owned(),
                });
            }
            Call::Processes => processes::count(),
            Call::Work => processes::work(),
            Call::EndProcesses => processes::end(),
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
        // It is asked for every few seconds.
        if let Ok(workspace) = &self.workspace {
            workspace.forget_names();
        }
        readiness::wait(self.directory, SETUP_LIMIT).map_err(|reason| match reason {
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
        let workspace = self
            .workspace
            .as_ref()
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

/// Returns the bytes of a response; one that is too long for a frame says so.
fn response(id: u64, more: bool, result: Result<Reply, CallError>, body: &[u8]) -> Vec<u8> {
    protocol::encode(&Response { id, more, result }, body).unwrap_or_else(|error| {
        let error = CallError {
            failure: Failure::TooLarge,
            message: error.to_string(),
        };
        let response = Response {
            id,
            more: false,
            result: Err(error),
        };
        protocol::encode(&response, &[]).unwrap_or_default()
    })
}

/// Takes the requests out of a stream until that ends.
fn each_request(
    mut input: impl Read,
    mut take: impl FnMut(Frame<Request>),
) -> Result<(), ProtocolError> {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A stdin that cannot be read has ended.
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => buffer.get(..length).unwrap_or_default(),
        };
        decoder.push(bytes);
        while let Some(frame) = decoder.next_frame()? {
            take(frame);
        }
    }
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WriteCondition;

    /// Plays a whole stream to an agent on an empty workspace, and returns the responses by id.
    fn check(requests: &[(Call, &[u8])]) -> Vec<(u64, Result<Reply, CallError>, Vec<u8>)> {
        let workspace = tempfile::tempdir().unwrap();
        check_in(workspace.path(), requests)
    }

    fn check_in(
        workspace: &Path,
        requests: &[(Call, &[u8])],
    ) -> Vec<(u64, Result<Reply, CallError>, Vec<u8>)> {
        let agent = Agent {
            workspace: Workspace::open(workspace),
            directory: Path::new("/nonexistent"),
            has_listed: AtomicBool::new(false),
            searches: Mutex::default(),
        };
        let input: Vec<u8> = (1..)
            .zip(requests)
            .flat_map(|(id, (call, body))| {
                protocol::encode(
                    &Request {
                        id,
                        call: call.clone(),
                    },
                    body,
                )
                .unwrap()
            })
            .collect();
        let mut output = Vec::new();
        agent.serve(&*input, &mut output).unwrap();
        let mut decoder = Decoder::<Response>::new();
        decoder.push(&output);
        let mut responses = Vec::new();
        while let Some(Frame { header, body }) = decoder.next_frame().unwrap() {
            responses.push((header.id, header.result, body));
        }
        assert!(decoder.is_between_frames());
        responses.sort_by_key(|(id, ..)| *id);
        responses
    }

    #[test]
    fn every_request_is_answered_once_even_beyond_the_threads() {
        let requests: Vec<_> = (0..100)
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
        let responses = check(&requests);
        assert_eq!(
            responses.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
            (1..=100).collect::<Vec<_>>()
        );
        assert!(responses.iter().all(|(_, result, _)| result.is_ok()));
    }

    #[test]
    fn another_protocol_is_refused_with_ours() {
        let responses = check(&[(Call::Hello { protocol: 99 }, b"")]);
        let error = responses.into_iter().next().unwrap().1.unwrap_err();
        assert_eq!(
            error.failure,
            Failure::UnsupportedProtocol {
                protocol: protocol::VERSION
            }
        );
        assert_eq!(error.message, "the agent speaks protocol 1, not 99");
    }

    #[test]
    fn a_search_is_answered_until_it_is_over() {
        let query = Query {
            text: "word".to_owned(),
            ..Query::default()
        };
        let write = Call::Write {
            path: "/workspace/a".into(),
            condition: WriteCondition::Anything,
        };
        let workspace = tempfile::tempdir().unwrap();
        let answers = check_in(workspace.path(), &[(write, b"a word")]);
        assert_eq!(answers.len(), 1);
        let search = Call::Search { query, limit: 10 };
        let found = |answers: &[(u64, Result<Reply, CallError>, Vec<u8>)]| {
            let mut found = Vec::new();
            for (_, answer, _) in answers {
                match answer {
                    Ok(Reply::Search { files, .. }) => found.extend(files.clone()),
                    other => panic!("{other:?}"),
                }
            }
            found
        };
        let answers = check_in(workspace.path(), &[(search.clone(), b"")]);
        assert_eq!(found(&answers)[0].path, "/workspace/a");
        let Some((1, Ok(Reply::Search { searched, .. }), _)) = answers.last() else {
            panic!("{answers:?}");
        };
        assert_eq!(searched.map(|searched| searched.files), Some(1));
        // One that is cancelled before a thread takes it finds nothing, and its end is told all the same.
        let busy: Vec<_> = (0..8)
            .map(|_| (Call::Hello { protocol: 99 }, b"".as_slice()))
            .collect();
        let cancel = Call::Cancel { search: 9 };
        let requests = [busy, vec![(search, b""), (cancel, b"")]].concat();
        let answers = check_in(workspace.path(), &requests);
        let last = answers.iter().rfind(|(id, ..)| *id == 9);
        assert!(matches!(
            last,
            Some((
                9,
                Ok(Reply::Search {
                    searched: Some(_),
                    ..
                }),
                _
            ))
        ));
        assert!(
            answers.iter().all(|(id, ..)| *id <= 9),
            "a cancel has no answer"
        );
    }

    #[test]
    fn a_missing_workspace_is_told_by_every_call() {
        let nowhere = Path::new("/nonexistent");
        let agent = Agent {
            workspace: Workspace::open(nowhere),
            directory: nowhere,
            has_listed: AtomicBool::new(false),
            searches: Mutex::default(),
        };
        let error = agent
            .answer(
                Call::List {
                    path: "/workspace".into(),
                    limit: 1,
                },
                &[],
            )
            .unwrap_err();
        assert_eq!(error.failure, Failure::NotFound);
    }

    #[test]
    fn a_stream_that_breaks_the_protocol_ends() {
        let agent = Agent {
            workspace: Workspace::open(Path::new("/")),
            directory: Path::new("/nonexistent"),
            has_listed: AtomicBool::new(false),
            searches: Mutex::default(),
        };
        assert!(agent.serve([255; 64].as_slice(), Vec::new()).is_err());
    }
}
