//! One pull for all runs that wait for the same image on the same engine. Each sees the same progress; it ends on the
//! engine when the last of them wants it no more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{TryStreamExt, future};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, EngineFacts, EngineId, Lent};
use crate::error::Error;
use crate::estimate::{PullTracker, PullUsual, PullView};
use crate::image::ImageReference;
use crate::words::tamed;

/// How often a pull is begun whose stream breaks while the engine answers. What was pulled by then it has.
const TRIES: u32 = 3;

/// The pulls that are under way.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    under_way: Mutex<HashMap<(EngineId, ImageReference), Weak<SharedPull>>>,
}

/// One pull. When the last holder drops it, the engine stops.
#[derive(Debug)]
pub(crate) struct SharedPull {
    progress: Arc<Progress>,
    _ends: DropGuard,
}

#[derive(Debug)]
struct Progress {
    began: Instant,
    tracker: Mutex<PullTracker>,
    /// The program that is waited for before the pull can begin.
    waits_for: watch::Sender<Option<String>>,
    /// How the pull ended, once it has.
    ended: watch::Sender<Option<Result<(), Error>>>,
}

/// A pull that a run waits for.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pull: Arc<SharedPull>,
    /// Whether another run had begun it.
    joined: bool,
}

impl Pulls {
    /// Joins the pull of this image on this engine, or begins it. What is usual lends the sizes that are remembered.
    pub(crate) fn join(
        &self,
        engine: &Arc<dyn Engine>,
        image: &ImageReference,
        facts: &EngineFacts,
        usual: Option<&PullUsual>,
        tasks: &TaskTracker,
    ) -> Joined {
        let mut under_way = self.under_way.lock();
        under_way.retain(|_, pull| pull.strong_count() > 0);
        let key = (engine.identity().id.clone(), image.clone());
        let known = under_way.get(&key).and_then(Weak::upgrade);
        if let Some(pull) = known.filter(|pull| !pull.progress.has_ended()) {
            return Joined { pull, joined: true };
        }
        let mut tracker = PullTracker::new(facts.pull_dialect);
        if let Some(usual) = usual {
            tracker.remember(usual.sizes());
        }
        let progress = Arc::new(Progress {
            began: Instant::now(),
            tracker: Mutex::new(tracker),
            waits_for: watch::Sender::new(None),
            ended: watch::Sender::new(None),
        });
        let cancel = CancellationToken::new();
        tasks.spawn(follow(
            Arc::clone(engine),
            image.clone(),
            facts.architecture.clone(),
            Arc::clone(&progress),
            cancel.clone(),
        ));
        let pull = Arc::new(SharedPull {
            progress,
            _ends: cancel.drop_guard(),
        });
        under_way.insert(key, Arc::downgrade(&pull));
        Joined {
            pull,
            joined: false,
        }
    }
}

impl Joined {
    /// Waits for the end of the pull. Until then `waits` hears which program is waited for, and when none is any more.
    pub(crate) async fn finished(&self, waits: impl Fn(Option<&str>)) -> Result<(), Error> {
        let progress = &self.pull.progress;
        let (mut ended, mut waits_for) =
            (progress.ended.subscribe(), progress.waits_for.subscribe());
        if let Some(program) = &*waits_for.borrow_and_update() {
            waits(Some(program));
        }
        loop {
            tokio::select! {
                result = ended.wait_for(Option::is_some) => {
                    return match result.as_deref() {
                        Ok(Some(result)) => result.clone(),
                        Ok(None) | Err(_) => Err(Error::Internal("a pull was lost".to_owned())),
                    };
                }
                Ok(()) = waits_for.changed() => waits(waits_for.borrow_and_update().as_deref()),
            }
        }
    }

    /// Looks at the layers as they are `now`.
    pub(crate) fn look<T>(&self, now: Instant, look: impl FnOnce(PullView<'_>) -> T) -> T {
        let progress = &self.pull.progress;
        look(PullView {
            tracker: &progress.tracker(),
            at: now.saturating_duration_since(progress.began),
            joined: self.joined,
        })
    }
}

impl Progress {
    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    fn tracker(&self) -> MutexGuard<'_, PullTracker> {
        self.tracker.lock()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Follows the engine's stream to its end, or until nobody waits for it any more.
async fn follow(
    engine: Arc<dyn Engine>,
    image: ImageReference,
    architecture: String,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) {
    let pull = pull(&*engine, &image, &architecture, &progress);
    // Dropping the stream is what stops the engine.
    let Some(result) = cancel.run_until_cancelled(pull).await else {
        return;
    };
    if result.is_ok() {
        progress.tracker().finish(progress.elapsed());
    }
    progress.ended.send_replace(Some(result));
}

async fn pull(
    engine: &dyn Engine,
    image: &ImageReference,
    architecture: &str,
    progress: &Progress,
) -> Result<(), Error> {
    let waits = |program: &str| {
        progress.waits_for.send_replace(Some(program.to_owned()));
    };
    // Asked for once, and lent to all that needs it.
    let lent = engine.credential(image, &waits).await;
    if let Some(problem) = &lent.problem {
        log::warn!("going on without what could not be had: {problem}");
    }
    progress
        .waits_for
        .send_if_modified(|program| program.take().is_some());
    let mut attempt = 1;
    loop {
        match hear(engine, image, &lent, architecture, progress).await {
            // It is the line to the engine that broke; and where that has gone, nobody answers.
            Err(error @ Error::EngineUnavailable { .. })
                if attempt < TRIES && engine.facts().await.is_ok() =>
            {
                attempt += 1;
                log::warn!("the pull of {image} is begun anew: {error}");
            }
            pulled => return pulled,
        }
    }
}

/// Hears what the engine says of one pull, to its end.
async fn hear(
    engine: &dyn Engine,
    image: &ImageReference,
    lent: &Lent,
    architecture: &str,
    progress: &Progress,
) -> Result<(), Error> {
    let mut messages = engine.pull(image, lent).await?;
    // Asked for when the engine has named layers whose sizes nobody knows.
    let mut sizes = future::Either::Left(future::pending());
    let mut asked = false;
    loop {
        let message = tokio::select! {
            message = messages.try_next() => message?,
            answer = &mut sizes => {
                sizes = future::Either::Left(future::pending());
                match answer {
                    Ok(known) => progress.tracker().learn_manifest(known),
                    Err(error) => note_unknown_sizes(&error),
                }
                continue;
            }
        };
        let Some(message) = message else {
            return Ok(());
        };
        let lacks_sizes = {
            let mut tracker = progress.tracker();
            tracker.take(&message, progress.elapsed());
            !asked && tracker.lacks_sizes()
        };
        if lacks_sizes {
            asked = true;
            sizes = future::Either::Right(engine.layer_sizes(image, architecture, lent));
        }
    }
}

fn note_unknown_sizes(error: &Error) {
    let words = tamed(&error.to_string());
    log::info!("the sizes of layers stay unknown: {words}");
}
