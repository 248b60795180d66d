//! Telling when files change that a window shows. What is watched is what the window says it shows, and nothing once it
//! shows nothing.
//!
//! Watching is no use of a session: one whose files are only watched is left alone. Reading what has changed is one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cove_agent::path::WorkspacePath;
use cove_agent::protocol::{Call, Decoder, Frame, encode};
use cove_agent::watch::{MOST_WATCHED, MOST_WATCHED_BYTES, News, Watched};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::Sessions;
use super::entry::OpenSession;
use crate::connection::{CallFailure, Connection, Stream};
use crate::error::Error;
use crate::event::FilesChanged;
use crate::session::SessionId;

/// How long it may take until something is watched.
const LIMIT: Duration = Duration::from_secs(5);
/// How long nothing more is told after something was: an agent that tells more often waits.
const PACE: Duration = Duration::from_millis(20);
/// What may be asked before it is looked at.
const AHEAD: usize = 8;
/// Bytes of a path that JSON may add: quotes and a comma, and of each byte five more.
const ADDED: (usize, usize) = (3, 6);

/// What is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Watching {
    /// Whether some of what was asked for is not: it is too much, or the container's system lets a user watch no more.
    pub limited: bool,
}

/// What is to be watched from now on.
#[derive(Debug)]
pub(super) struct Asked {
    paths: BTreeSet<String>,
    done: oneshot::Sender<Result<Watching, Error>>,
}

impl Sessions {
    /// Watches these folders and files of a session from now on, in place of what was: [`Reporter::files_changed`] hears what of
    /// them changes. All of them count as changed after the connection was broken. Nothing is watched of a path that
    /// makes no sense.
    ///
    /// [`Reporter::files_changed`]: crate::event::Reporter::files_changed
    ///
    /// # Errors
    /// [`Error::SessionNotReady`]; [`Error::AgentUnavailable`] when nothing can be watched.
    pub async fn watch_dirs(&self, id: SessionId, paths: Vec<String>) -> Result<Watching, Error> {
        self.know(id).await?;
        let open = self.with_entry(id, |entry| {
            let open = entry.activity.connected().cloned();
            open.ok_or_else(|| Error::SessionNotReady(entry.state().as_str()))
        })??;
        let (paths, is_cut) = bounded(paths);
        let watching = timeout(
            LIMIT,
            open.unless_paused(self.ask_to_watch(id, &open, paths)),
        );
        let silent =
            |_elapsed| Error::AgentUnavailable(format!("no answer within {} s", LIMIT.as_secs()));
        let watching = watching.await.map_err(silent)??;
        Ok(Watching {
            limited: watching.limited || is_cut,
        })
    }

    async fn ask_to_watch(
        &self,
        id: SessionId,
        open: &Arc<OpenSession>,
        paths: BTreeSet<String>,
    ) -> Result<Watching, Error> {
        let asks = open.watched.get_or_init(|| {
            let (sender, asks) = mpsc::channel(AHEAD);
            let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&open.connection));
            self.shared.tracker.spawn(async move {
                let tell = |paths: Vec<String>, overflowed| {
                    shared.reporter.files_changed(&FilesChanged {
                        session_id: id,
                        paths,
                        overflowed,
                    });
                };
                tokio::select! {
                    () = watch(&connection, asks, tell) => {}
                    () = connection.closed() => {}
                    () = shared.closing.cancelled() => {}
                }
            });
            sender
        });
        let (done, watching) = oneshot::channel();
        let is_over = || Error::SessionNotReady("stopped");
        let asked = asks.send(Asked { paths, done }).await;
        asked.map_err(|_| is_over())?;
        watching.await.map_err(|_| is_over())?
    }

    /// Watches no files any more: the window that showed them is gone.
    pub(super) fn watch_no_files(&self) {
        for entry in self.shared.entries().values() {
            if let Some(asks) = entry
                .activity
                .connected()
                .and_then(|open| open.watched.get())
            {
                let (done, _) = oneshot::channel();
                let paths = BTreeSet::new();
                // With so much to do it has a window that says what it shows.
                let _ = asks.try_send(Asked { paths, done });
            }
        }
    }
}

/// Returns as many of these paths as can be watched, and whether those are not all.
fn bounded(paths: Vec<String>) -> (BTreeSet<String>, bool) {
    let (mut bounded, mut bytes) = (BTreeSet::new(), 0);
    for path in paths {
        let Ok(path) = WorkspacePath::parse(&path) else {
            continue;
        };
        let path = path.to_string();
        bytes += ADDED.0 + ADDED.1 * path.len();
        if bounded.len() == MOST_WATCHED || bytes > MOST_WATCHED_BYTES {
            return (bounded, true);
        }
        bounded.insert(path);
    }
    (bounded, false)
}

/// Watches what is asked for until nobody can ask any more.
async fn watch(
    connection: &Connection,
    mut asks: mpsc::Receiver<Asked>,
    tell: impl Fn(Vec<String>, bool),
) {
    let mut paths = BTreeSet::new();
    let mut waiting = VecDeque::new();
    // Whether something was watched already and may have changed unseen.
    let mut was_broken = false;
    loop {
        while paths.is_empty() {
            let Some(asked) = asks.recv().await else {
                return;
            };
            paths = asked.paths;
            was_broken = false;
            if paths.is_empty() {
                let _ = asked.done.send(Ok(Watching::default()));
            } else {
                waiting.push_back(asked.done);
            }
        }
        let opened = connection.converse::<News>(&Call::Watch).await;
        let (stream, decoder) = match opened {
            Ok((_, _, stream, decoder)) => (stream, decoder),
            Err(CallFailure::Broken | CallFailure::NoAnswer(_)) => continue,
            Err(failure @ CallFailure::Refused(_)) => {
                log::warn!("files are not watched: {failure:?}");
                paths.clear();
                let message = failure.into_error().to_string();
                for done in waiting.drain(..) {
                    let _ = done.send(Err(Error::AgentUnavailable(message.clone())));
                }
                continue;
            }
        };
        let mut look = Look {
            stream,
            decoder,
            waiting: &mut waiting,
            paths: &mut paths,
        };
        if look.begin().await {
            if was_broken {
                tell(look.paths.iter().cloned().collect(), false);
            }
            if !look.go_on(&mut asks, &tell).await {
                return;
            }
        }
        was_broken = true;
    }
}

/// A stream on which changes are told.
struct Look<'a> {
    stream: Stream,
    decoder: Decoder<News>,
    /// Those whose paths are not watched yet, in the order in which they asked.
    waiting: &'a mut VecDeque<oneshot::Sender<Result<Watching, Error>>>,
    paths: &'a mut BTreeSet<String>,
}

impl Look<'_> {
    /// Watches what is to be watched already; `false` when the stream broke.
    async fn begin(&mut self) -> bool {
        if !self.send().await {
            return false;
        }
        loop {
            match self.decoder.next_frame() {
                Ok(Some(Frame {
                    header: News::Watching { limited },
                    ..
                })) => {
                    // All who wait have asked for this, or for something before it.
                    for done in self.waiting.drain(..) {
                        let _ = done.send(Ok(Watching { limited }));
                    }
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) => match self.stream.next().await {
                    Some(bytes) => self.decoder.push(&bytes),
                    None => return false,
                },
                Err(_) => return false,
            }
        }
    }

    /// Tells what changes and watches what is asked for until the stream breaks, or nothing is asked for; `false` when nobody can
    /// ask any more.
    async fn go_on(
        &mut self,
        asks: &mut mpsc::Receiver<Asked>,
        tell: &impl Fn(Vec<String>, bool),
    ) -> bool {
        let mut told = Instant::now();
        loop {
            match self.decoder.next_frame() {
                Ok(Some(Frame { header, .. })) => {
                    if self.hear(header, tell) {
                        told = Instant::now();
                    }
                    continue;
                }
                Ok(None) => {}
                Err(_) => return true,
            }
            let next = async {
                sleep_until(told + PACE).await;
                self.stream.next().await
            };
            tokio::select! {
                asked = asks.recv() => {
                    let Some(asked) = asked else {
                        return false;
                    };
                    *self.paths = asked.paths;
                    self.waiting.push_back(asked.done);
                    if self.paths.is_empty() {
                        for done in self.waiting.drain(..) {
                            let _ = done.send(Ok(Watching::default()));
                        }
                        return true;
                    }
                    if !self.send().await {
                        return true;
                    }
                }
                bytes = next => match bytes {
                    Some(bytes) => self.decoder.push(&bytes),
                    None => return true,
                },
            }
        }
    }

    async fn send(&self) -> bool {
        let watched = Watched {
            paths: self.paths.iter().cloned().collect(),
        };
        match encode(&watched, &[]) {
            Ok(frame) => self.stream.send(&frame).await,
            Err(error) => {
                log::error!("what is to be watched cannot be said: {error}");
                false
            }
        }
    }

    /// Hears what the agent says; returns whether something was told. What was not asked for is not told.
    fn hear(&mut self, news: News, tell: &impl Fn(Vec<String>, bool)) -> bool {
        match news {
            News::Watching { limited } => {
                if let Some(done) = self.waiting.pop_front() {
                    let _ = done.send(Ok(Watching { limited }));
                }
                false
            }
            News::Changed { paths, overflowed } => {
                let mut paths: BTreeSet<String> = paths.into_iter().collect();
                paths.retain(|path| self.paths.contains(path));
                if overflowed {
                    paths.clone_from(self.paths);
                }
                let is_news = !paths.is_empty();
                if is_news {
                    tell(paths.into_iter().collect(), overflowed);
                }
                is_news
            }
        }
    }
}
