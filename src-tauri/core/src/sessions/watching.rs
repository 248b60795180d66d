//! Who looks at what a session uses and prints, for as long as they look: figures and the container's log. Nothing is measured
//! and nothing is read for nobody: a watch ends with its window, with the session, and when it is told to.
//!
//! Looking is no use of a session: one that is only watched is left alone. That its memory was used up is heard anyway,
//! because engines tell that by themselves (`following.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::entry::OpenSession;
use super::{Sessions, Shared};
use crate::container_log::{Lines, LogText, MOST_LINES, Printed, Tail};
use crate::engine::{Engine, ExecOutput, in_time};
use crate::engines::KnownEngine;
use crate::error::{Error, ErrorReport};
use crate::figures::{ContainerLimits, Figures};
use crate::session::{OutOfMemory, SessionId};

/// The most watches at a time; one more ends the oldest, which is that of a window that has forgotten it.
const MOST_WATCHES: usize = 16;
/// How long a single look waits for the processor's figure: Docker looks every second, Podman every five.
const FIRST_LOOK: Duration = Duration::from_secs(6);
/// While a program that the kernel has chosen comes to its end, its end is told again and again: what follows within this
/// time is the same, also if the user has dismissed it meanwhile.
const SAME_END: Duration = Duration::from_secs(2);
/// How long a log is read back before what has come so far has to do.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Text is told when this much has come, or this long after the first of it.
const BATCH: (usize, Duration) = (64 << 10, Duration::from_millis(50));
/// Batches that the window may have before it has shown one.
const AHEAD: usize = 4;

/// Names a watch that is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WatchId(u64);

/// What those who watch figures hear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FiguresNews {
    /// They are these now.
    Figures(Figures),
    /// Nothing is measured any more, of itself or because of an error.
    Ended {
        /// Why; `null` when the session is not ready any more.
        error: Option<ErrorReport>,
    },
}

/// What those who watch a log hear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogNews {
    /// These lines were printed. Each is to be acknowledged by [`Sessions::acknowledge_log`]: else no more are read.
    Text {
        /// Whole lines, each with its line break.
        text: String,
    },
    /// No more is printed, or no more can be read.
    Ended {
        /// Why it cannot be read; `null` when the container does not run.
        error: Option<ErrorReport>,
    },
}

/// Hears what is watched. Must not block.
pub type WatchSink<T> = Box<dyn Fn(T) + Send + Sync>;

/// The watches that are under way.
#[derive(Debug, Default)]
pub(super) struct Watches {
    last: WatchId,
    open: BTreeMap<WatchId, Watch>,
}

#[derive(Debug, Clone)]
struct Watch {
    cancel: CancellationToken,
    /// How much more may be told before the window has acknowledged some.
    credit: Arc<Semaphore>,
}

impl Watches {
    fn begin(&mut self, closing: &CancellationToken) -> (WatchId, Watch) {
        while self.open.len() >= MOST_WATCHES
            && let Some((_, oldest)) = self.open.pop_first()
        {
            oldest.cancel.cancel();
        }
        self.last = WatchId(self.last.0 + 1);
        let watch = Watch {
            cancel: closing.child_token(),
            credit: Arc::new(Semaphore::new(AHEAD)),
        };
        self.open.insert(self.last, watch.clone());
        (self.last, watch)
    }
}

impl Sessions {
    /// Measures once what a session uses. Takes a second or two, because processor time is the difference of two looks;
    /// where an engine looks seldom, that figure is absent.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], and what the engine answers.
    pub async fn figures(&self, id: SessionId) -> Result<Figures, Error> {
        let (_, mut measured) = self.measuring(id).await?;
        let limit = Instant::now() + FIRST_LOOK;
        let mut figures = next(&mut measured).await?;
        while figures.cpu.is_none()
            && let Ok(Some(next)) = timeout_at(limit, measured.next()).await
        {
            figures = next?;
        }
        Ok(figures)
    }

    /// Measures what a session uses for as long as it is ready and the watch is not ended. Returns what it uses now;
    /// the rest is told to `sink`, at the engine's pace.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`], and what the engine answers.
    pub async fn watch_figures(
        &self,
        id: SessionId,
        sink: WatchSink<FiguresNews>,
    ) -> Result<(WatchId, Figures), Error> {
        let (open, mut measured) = self.measuring(id).await?;
        let figures = next(&mut measured).await?;
        let watch = self.watch(async move |_| {
            let telling = async {
                loop {
                    sink(FiguresNews::Figures(next(&mut measured).await?));
                }
            };
            let told: Result<(), Error> = tokio::select! {
                told = telling => told,
                () = open.connection.closed() => Ok(()),
            };
            let error = told.err().map(|error| error.report());
            sink(FiguresNews::Ended { error });
        });
        Ok((watch, figures))
    }

    /// Reads the last lines of what a session's container has printed, whether or not it runs.
    ///
    /// # Errors
    /// [`Error::SessionNotReady`] for a session without a container; [`Error::Validation`] for more than
    /// [`MOST_LINES`] lines; what the engine answers.
    pub async fn read_log(&self, id: SessionId, tail: usize) -> Result<LogText, Error> {
        let mut pieces = self.log(id, tail, false).await?;
        let (mut lines, mut last) = (Lines::default(), Tail::default());
        let reading = async {
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                let (printed, bytes) = printed(&piece);
                lines.push(printed, bytes, |line| last.add(line));
            }
            Ok::<_, Error>(())
        };
        let read = timeout(READ_LIMIT, reading).await;
        let is_whole = match read {
            Ok(read) => read.map(|()| true)?,
            Err(_elapsed) => false,
        };
        lines.end(|line| last.add(line));
        Ok(last.into_text(is_whole))
    }

    /// Reads the last lines of what a session's container has printed and what it prints from then on, until it ends or
    /// the watch does. All is told to `sink`, no faster than it is acknowledged.
    ///
    /// # Errors
    /// Those of [`Self::read_log`].
    pub async fn watch_log(
        &self,
        id: SessionId,
        tail: usize,
        sink: WatchSink<LogNews>,
    ) -> Result<WatchId, Error> {
        let pieces = self.log(id, tail, true).await?;
        Ok(self.watch(async move |credit| {
            let told = tell_lines(pieces, &credit, &sink).await;
            let error = told.err().map(|error| error.report());
            sink(LogNews::Ended { error });
        }))
    }

    /// Takes note that the window has shown a piece of a log. Does nothing when the watch has ended.
    pub fn acknowledge_log(&self, watch: WatchId) {
        let watches = self.shared.watches.lock();
        if let Some(watch) = watches.open.get(&watch)
            && watch.credit.available_permits() < AHEAD
        {
            watch.credit.add_permits(1);
        }
    }

    /// Ends a watch. Does nothing when it has ended.
    pub fn end_watch(&self, watch: WatchId) {
        if let Some(watch) = self.shared.watches.lock().open.remove(&watch) {
            watch.cancel.cancel();
        }
    }

    /// Ends all watches: the window that had them is gone.
    pub fn end_watches(&self) {
        for watch in std::mem::take(&mut self.shared.watches.lock().open).into_values() {
            watch.cancel.cancel();
        }
        self.watch_no_files();
    }

    /// Takes note that the user knows that a session's memory was used up.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn dismiss_note(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        if let Some(entry) = self.shared.entries().get_mut(&id) {
            entry.out_of_memory = None;
        }
        Ok(())
    }

    /// Takes note that programs of these containers were ended for want of memory, in so far as they are sessions'. Until the
    /// user knows, that is told once: some engines tell one end several times.
    pub(super) async fn note_out_of_memory(
        &self,
        known: &KnownEngine,
        engine: &dyn Engine,
        containers: &BTreeSet<String>,
    ) {
        for container in containers {
            let Some(id) = self.shared.unaware(known, container) else {
                continue;
            };
            let limits = in_time("inspect the container", engine.limits(container)).await;
            // What there is to say can be said without the figure.
            let limits = limits.unwrap_or_default();
            log::warn!("a program of session {id} was ended for want of memory: {limits:?}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let note = OutOfMemory {
                limit_bytes: limits.memory_bytes,
                at_ms: i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX),
            };
            if let Some(entry) = self.shared.entries().get_mut(&id) {
                entry.out_of_memory.get_or_insert(note);
            }
        }
    }

    /// Begins to measure a ready session.
    async fn measuring(&self, id: SessionId) -> Result<(Arc<OpenSession>, Measured), Error> {
        let open = self.ready(id).await?.0.open;
        let engine = self.engine_of(id).await?;
        let begin = async {
            let limits = engine.limits(&open.container).await?;
            Ok((limits, engine.figures(&open.container).await?))
        };
        let (limits, measured) = in_time("measure the container", begin).await?;
        Ok((open, within(measured, limits)))
    }

    async fn log(
        &self,
        id: SessionId,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<ExecOutput, Error>>, Error> {
        if tail > MOST_LINES {
            return Err(Error::field(
                "tail",
                format!("must be at most {MOST_LINES} lines"),
            ));
        }
        let (engine, container) = self.container_of(id).await?;
        in_time(
            "read the container's log",
            engine.log(&container.id, tail, follow),
        )
        .await
    }

    /// Lets this go on until it ends by itself or the watch is ended.
    fn watch<T>(&self, work: impl FnOnce(Arc<Semaphore>) -> T) -> WatchId
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let (id, watch) = shared.watches.lock().begin(&shared.closing);
        let work = work(watch.credit);
        self.shared.tracker.spawn(async move {
            watch.cancel.run_until_cancelled(work).await;
            shared.watches.lock().open.remove(&id);
        });
        id
    }
}

impl Shared {
    /// Returns the ready session that has this container, unless it has a note already or the same end was told before.
    fn unaware(&self, engine: &KnownEngine, container: &str) -> Option<SessionId> {
        let mut entries = self.entries();
        let (id, entry) = entries.iter_mut().find(|(_, entry)| {
            let open = entry.activity.connected();
            entry.is_on(engine) && open.is_some_and(|open| open.container == container)
        })?;
        let now = Instant::now();
        let before = entry.out_of_memory_heard.replace(now);
        let is_news = before.is_none_or(|before| now - before > SAME_END);
        (is_news && entry.out_of_memory.is_none()).then_some(*id)
    }
}

/// What is measured, as it comes.
type Measured = BoxStream<'static, Result<Figures, Error>>;

fn within(measured: Measured, limits: ContainerLimits) -> Measured {
    measured
        .map(move |figures| figures.map(|figures| figures.within(&limits)))
        .boxed()
}

/// Waits for the next figures; an engine that tells none for long does not answer.
async fn next(measured: &mut Measured) -> Result<Figures, Error> {
    let look = async {
        let figures = measured.next().await;
        figures.unwrap_or(Err(Error::SessionNotReady("stopped")))
    };
    in_time("measure the container", look).await
}

/// Tells lines in batches, each when the window has room for it: what is printed faster waits in the engine.
async fn tell_lines(
    mut pieces: BoxStream<'static, Result<ExecOutput, Error>>,
    credit: &Semaphore,
    sink: &WatchSink<LogNews>,
) -> Result<(), Error> {
    let (most, pause) = BATCH;
    let mut lines = Lines::default();
    let mut is_over = false;
    while !is_over {
        let mut text = String::new();
        let mut next = pieces.next().await;
        let told_by = Instant::now() + pause;
        loop {
            let Some(piece) = next.transpose()? else {
                lines.end(|line| text.push_str(&line));
                is_over = true;
                break;
            };
            let (printed, bytes) = printed(&piece);
            lines.push(printed, bytes, |line| text.push_str(&line));
            if text.len() >= most {
                break;
            }
            match timeout_at(told_by, pieces.next()).await {
                Ok(following) => next = following,
                Err(_elapsed) => break,
            }
        }
        if text.is_empty() {
            continue;
        }
        // It is never closed.
        if let Ok(permit) = credit.acquire().await {
            permit.forget();
        }
        sink(LogNews::Text { text });
    }
    Ok(())
}

fn printed(piece: &ExecOutput) -> (Printed, &[u8]) {
    match piece {
        ExecOutput::Out(bytes) => (Printed::Out, bytes),
        ExecOutput::Err(bytes) => (Printed::Err, bytes),
    }
}
