//! Trees on their way out of the workspace and into it.
//!
//! They are packed and unpacked by four threads of their own, made at the start like those for calls, so that no
//! other call waits for them. What a thread says and what it hears goes through a [`Pipe`], which is bounded in both
//! directions: a thread that is faster than the app waits, and what it has not used is not granted anew. Whoever goes
//! away ends the work, and what has come in half is removed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use super::Waker;
use super::calls::frame_of;
use crate::protocol::{CallError, Failure, Reply, Resume, Taken, encode};
use crate::tree::Piece;
use crate::workspace::Workspace;

/// How many trees are on their way at the same time.
const AT_ONCE: usize = 4;

/// The stack of each of the threads.
const STACK: usize = 512 << 10;

/// Bytes that may wait for the app.
const MOST_WAITING: usize = 256 << 10;

/// The daemon is told of bytes that were used when they are so many.
const TELL_USED: usize = 64 << 10;

/// What is to be done.
pub(super) enum Job {
    Pack {
        paths: Vec<String>,
        resume: Option<Resume>,
    },
    Unpack {
        folder: String,
        names: Vec<String>,
        taken: Taken,
    },
}

/// Those who do it.
pub(super) struct Transfers {
    queue: mpsc::Sender<(Job, Arc<Pipe>)>,
    under_way: Arc<AtomicUsize>,
    threads: usize,
}

impl Transfers {
    /// Makes the threads, or as many as can be made.
    pub(super) fn new(workspace: &Result<Arc<Workspace>, CallError>) -> Self {
        let (queue, jobs) = mpsc::channel::<(Job, Arc<Pipe>)>();
        let jobs = Arc::new(Mutex::new(jobs));
        let under_way = Arc::new(AtomicUsize::new(0));
        let threads = (0..AT_ONCE).map_while(|_| {
            let (workspace, jobs) = (workspace.clone(), Arc::clone(&jobs));
            let under_way = Arc::clone(&under_way);
            let next = move || lock(&jobs).recv().ok();
            let thread = thread::Builder::new().stack_size(STACK);
            // It ends with the queue.
            let thread = thread.spawn(move || {
                while let Some((job, pipe)) = next() {
                    // Whoever does not listen any more needs no end.
                    let _ = work(&workspace, job, &pipe);
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    pipe.end();
                }
            });
            thread.ok()
        });
        Self {
            queue,
            threads: threads.count(),
            under_way,
        }
    }

    /// Begins a job; `rest` has come behind the call. `waker` wakes the daemon when it has to look.
    pub(super) fn begin(
        &self,
        job: Job,
        rest: Vec<u8>,
        waker: &Waker,
    ) -> Result<Transfer, CallError> {
        if self.under_way.load(Ordering::Relaxed) >= self.threads {
            return Err(CallError {
                failure: Failure::Invalid,
                message: format!(
                    "{} transfers are under way; wait until one has ended",
                    self.threads
                ),
            });
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let pipe = Arc::new(Pipe {
            state: Mutex::new(State {
                granted: rest.len(),
                incoming: rest.into(),
                ..State::default()
            }),
            changed: Condvar::new(),
            waker: waker.clone(),
        });
        // The threads end only after this.
        let _ = self.queue.send((job, Arc::clone(&pipe)));
        Ok(Transfer(pipe))
    }
}

fn work(
    workspace: &Result<Arc<Workspace>, CallError>,
    job: Job,
    mut pipe: &Pipe,
) -> io::Result<()> {
    let refused = |error| frame_of(Err(error), &[]);
    let workspace = match workspace {
        Ok(workspace) => workspace,
        Err(error) => return pipe.write_all(&refused(error.clone())),
    };
    match job {
        Job::Pack { paths, resume } => match workspace.outgoing(&paths, resume.as_ref()) {
            Err(error) => pipe.write_all(&refused(error)),
            Ok(outgoing) => {
                let revision = outgoing.revision.clone();
                pipe.write_all(&frame_of(Ok(Reply::Pack { revision }), &[]))?;
                outgoing.tell(pipe)
            }
        },
        Job::Unpack {
            folder,
            names,
            taken,
        } => match workspace.incoming(&folder, &names, taken) {
            Err(error) => pipe.write_all(&refused(error)),
            Ok(incoming) => {
                let occupied = incoming.occupied.clone();
                let is_refused = !occupied.is_empty();
                pipe.write_all(&frame_of(Ok(Reply::Unpack { occupied }), &[]))?;
                if is_refused {
                    return Ok(());
                }
                let end = match workspace.receive(&incoming, pipe) {
                    Ok(()) => Piece::End,
                    Err(failed) => Piece::Failed(failed),
                };
                pipe.write_all(&encode(&end, &[]).map_err(io::Error::other)?)
            }
        },
    }
}

/// The daemon's end of a job. Dropping it ends the work.
pub(super) struct Transfer(Arc<Pipe>);

impl Transfer {
    /// Takes in what has come from the app, which has credit for no more than fits.
    pub(super) fn hear(&self, bytes: &[u8]) {
        self.0.change(|state| state.incoming.extend(bytes));
    }

    /// Takes note that nothing more comes.
    pub(super) fn hear_end(&self) {
        self.0.change(|state| state.has_all = true);
    }

    /// Returns how many bytes that have come were used since this was asked.
    pub(super) fn used(&self) -> usize {
        std::mem::take(&mut lock(&self.0.state).used)
    }

    /// Gives away what is there for the app, at most `room` bytes; returns whether nothing follows.
    pub(super) fn speak(&self, room: usize, mut send: impl FnMut(&[u8])) -> bool {
        let mut is_over = false;
        self.0.change(|state| {
            let count = room.min(state.outgoing.len());
            let (front, back) = state.outgoing.as_slices();
            let in_front = count.min(front.len());
            send(front.get(..in_front).unwrap_or_default());
            send(back.get(..count - in_front).unwrap_or_default());
            state.outgoing.drain(..count);
            is_over = state.has_ended && state.outgoing.is_empty();
        });
        is_over
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.change(|state| state.is_gone = true);
    }
}

/// What is between the daemon and a thread.
pub(super) struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
    waker: Waker,
}

#[derive(Default)]
struct State {
    /// What has come: no more than the stream's window, and what came with the call.
    incoming: VecDeque<u8>,
    /// Bytes at the front of it that were granted anew already.
    granted: usize,
    /// Bytes that were used and not granted anew.
    used: usize,
    /// Whether nothing more comes.
    has_all: bool,
    /// At most [`MOST_WAITING`].
    outgoing: VecDeque<u8>,
    /// Whether the work is over.
    has_ended: bool,
    /// Whether nobody listens any more.
    is_gone: bool,
}

impl Pipe {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    fn end(&self) {
        self.change(|state| state.has_ended = true);
        self.waker.wake();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(lock(&self.state), |state| !until(state) && !state.is_gone)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for &Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.wait(|state| !state.incoming.is_empty() || state.has_all);
        if state.is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = state.incoming.read(buffer)?;
        let free = state.granted.min(count);
        state.granted -= free;
        state.used += count - free;
        if state.used >= TELL_USED {
            drop(state);
            self.waker.wake();
        }
        Ok(count)
    }
}

impl Write for &Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.wait(|state| state.outgoing.len() < MOST_WAITING);
        if state.is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(MOST_WAITING - state.outgoing.len());
        state
            .outgoing
            .extend(bytes.get(..count).unwrap_or_default());
        drop(state);
        self.waker.wake();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
