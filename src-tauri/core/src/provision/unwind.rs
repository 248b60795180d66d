//! Effects on the engine and their undos. The name of what an effect makes is chosen, and its undo
//! registered, before the effect begins; so whatever moment a run ends at, nothing that it may have
//! made is forgotten.

use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Labels};
use crate::error::Error;
use crate::labels;
use crate::progress::Undone;
use crate::session::SessionId;

/// How long unwinding waits for calls that are under way. An engine that answers at all does so
/// sooner, and an undo before the effect would leave the effect behind.
const SETTLE_LIMIT: Duration = Duration::from_millis(800);
/// How long one undo may take before it counts as failed.
const UNDO_LIMIT: Duration = Duration::from_secs(5);

/// What takes an effect back. All are idempotent: what is gone already is a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undo {
    RemoveContainer(String),
    RemoveVolume(String),
    StopContainer(String),
}

/// The effects of one run, oldest first.
pub(super) struct Unwind {
    engine: Arc<dyn Engine>,
    tracker: TaskTracker,
    owner: SessionId,
    effects: Mutex<Vec<Effect>>,
}

struct Effect {
    undo: Option<Undo>,
    /// Cancelled when the engine has answered, well or badly.
    settled: CancellationToken,
}

/// What is still to be taken back when the end of a run is told, newest first.
pub(crate) struct Late {
    engine: Arc<dyn Engine>,
    owner: SessionId,
    effects: Vec<Effect>,
}

impl Unwind {
    pub(super) fn new(engine: Arc<dyn Engine>, tracker: TaskTracker, owner: SessionId) -> Self {
        Self {
            engine,
            tracker,
            owner,
            effects: Mutex::new(Vec::new()),
        }
    }

    /// Registers an undo, then lets the effect happen. The call to the engine goes on when the
    /// run stops waiting for it: only when it has been answered can its effect be undone for sure.
    pub(super) async fn effect<T: Send + 'static>(
        &self,
        undo: Option<Undo>,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let settled = CancellationToken::new();
        let guard = settled.clone().drop_guard();
        self.effects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Effect { undo, settled });
        let (sender, answer) = oneshot::channel();
        self.tracker.spawn(async move {
            let _settles_when_done = guard;
            // A run that has ended does not hear the answer.
            let _ = sender.send(call.await);
        });
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a call to the engine was lost".into())))
    }

    /// Keeps all effects: the run has come to its end.
    pub(super) fn forget(&self) {
        self.take();
    }

    /// Takes all effects back, newest first, and says what came of each. An effect that has not
    /// settled in time is left for later, and with it all that are older: what it makes may use
    /// what they made.
    pub(super) async fn run(&self) -> (Vec<Undone>, Late) {
        let effects = self.take();
        let all_settled = async {
            for effect in &effects {
                effect.settled.cancelled().await;
            }
        };
        // What has not settled by now is told below.
        let _ = tokio::time::timeout(SETTLE_LIMIT, all_settled).await;

        let mut undone = Vec::new();
        let mut late = Late {
            engine: Arc::clone(&self.engine),
            owner: self.owner,
            effects: Vec::new(),
        };
        for effect in effects.into_iter().rev() {
            let is_late = !late.effects.is_empty() || !effect.settled.is_cancelled();
            match &effect.undo {
                Some(undo) if is_late => undone.push(Undone {
                    what: undo.to_string(),
                    failure: Some(
                        "the engine has not answered yet; it is removed as soon as it does"
                            .to_owned(),
                    ),
                }),
                Some(undo) => match undo.attempt(&*self.engine, self.owner).await {
                    Ok(true) => undone.push(Undone {
                        what: undo.done(),
                        failure: None,
                    }),
                    Ok(false) => {}
                    Err(error) => {
                        log::warn!("{undo} failed: {error}");
                        undone.push(Undone {
                            what: undo.to_string(),
                            failure: Some(error.to_string()),
                        });
                    }
                },
                None => {}
            }
            if is_late {
                late.effects.push(effect);
            }
        }
        (undone, late)
    }

    fn take(&self) -> Vec<Effect> {
        mem::take(&mut *self.effects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Late {
    /// Takes back each effect when it has settled. The session's next run must wait for this.
    pub(crate) async fn finish(self) {
        for effect in self.effects {
            effect.settled.cancelled().await;
            let Some(undo) = effect.undo else { continue };
            if let Err(error) = undo.attempt(&*self.engine, self.owner).await {
                log::warn!("{undo} failed: {error}");
            }
        }
    }
}

impl Undo {
    /// Says that the effect was taken back, for people.
    fn done(&self) -> String {
        match self {
            Self::RemoveContainer(name) => format!("Removed container `{name}`"),
            Self::RemoveVolume(name) => format!("Removed volume `{name}`"),
            Self::StopContainer(name) => format!("Stopped container `{name}`"),
        }
    }

    /// Takes the effect back; `false` when there was nothing to take back. What bears the name
    /// and not the session's label is somebody else's, and stays.
    async fn attempt(&self, engine: &dyn Engine, owner: SessionId) -> Result<bool, Error> {
        let is_ours = |labels: &Labels| labels::belong_to(labels, owner);
        let attempt = async {
            match self {
                Self::RemoveContainer(name) => match engine.container(name).await? {
                    Some(container) if is_ours(&container.labels) => {
                        engine.remove_container(name).await
                    }
                    Some(_) | None => Ok(false),
                },
                Self::RemoveVolume(name) => match engine.volume(name).await? {
                    Some(labels) if is_ours(&labels) => engine.remove_volume(name).await,
                    Some(_) | None => Ok(false),
                },
                Self::StopContainer(name) => engine.stop_container(name).await.map(|()| true),
            }
        };
        tokio::time::timeout(UNDO_LIMIT, attempt)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Error::Internal(format!(
                    "no answer within {} s",
                    UNDO_LIMIT.as_secs()
                )))
            })
    }
}

/// Names the effect, for people.
impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveContainer(name) => write!(f, "Container `{name}`"),
            Self::RemoveVolume(name) => write!(f, "Volume `{name}`"),
            Self::StopContainer(name) => write!(f, "Start of container `{name}`"),
        }
    }
}
