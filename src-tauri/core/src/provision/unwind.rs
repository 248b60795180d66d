//! Effects on the engine and their undos. The name of what an effect makes is chosen, and its undo
//! registered and written into the journal, before the effect begins; so whatever moment a run ends at,
//! nothing that it may have made is forgotten.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::network;
use crate::engine::{ContainerFacts, ContainerState, Engine};
use crate::error::Error;
use crate::journal::{Journal, Record, Undo};
use crate::labels;
use crate::progress::Undone;
use crate::session::SessionId;

/// How long unwinding waits for calls that are under way. An engine that answers at all does so
/// sooner, and an undo before the effect would leave the effect behind.
const SETTLE_LIMIT: Duration = Duration::from_millis(900);
/// How long calls that are late are waited for before their undos are left to be tried again later.
const LATE_LIMIT: Duration = Duration::from_secs(20);
/// How long a cancel waits for its undos, the calls under way included: the rest of the two seconds that it may take is
/// for telling it.
pub(super) const CANCEL_LIMIT: Duration = Duration::from_millis(1_800);
/// How long programs have to end when a container is stopped again that a run has started.
const UNDO_GRACE: Duration = Duration::from_secs(1);
/// How long one undo may take before it counts as failed.
const UNDO_LIMIT: Duration = Duration::from_secs(5);

/// The effects of one run, oldest first.
pub(super) struct Unwind {
    engine: Arc<dyn Engine>,
    tracker: TaskTracker,
    journal: Arc<Journal>,
    owner: SessionId,
    state: Mutex<State>,
}

struct State {
    effects: Vec<Effect>,
    record: Record,
}

struct Effect {
    undo: Option<Undo>,
    /// Cancelled when the engine has answered, well or badly.
    settled: CancellationToken,
    /// Set when the connection broke instead: the engine may still do what it was asked.
    in_doubt: Arc<AtomicBool>,
}

impl Effect {
    /// Returns the undo with what is known of the effect now.
    fn undo_as_known(&self) -> Option<Undo> {
        match self.undo.clone()? {
            Undo::RemoveVolume {
                name,
                may_lack_labels,
            } => Some(Undo::RemoveVolume {
                name,
                may_lack_labels: may_lack_labels || self.in_doubt.load(Ordering::SeqCst),
            }),
            undo => Some(undo),
        }
    }
}

/// What it means when the thing that an undo is to remove is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    /// It is gone, or was never made: the undo is done.
    Done,
    /// It may come yet: the engine was cut off in the middle of a call.
    MayAppear,
}

/// What is still to be taken back when the end of a run is told, newest first.
pub(crate) struct PendingUndos {
    engine: Arc<dyn Engine>,
    journal: Arc<Journal>,
    owner: SessionId,
    record: Record,
    effects: Vec<Effect>,
}

/// What came of undos that were attempted after the end of their run.
#[derive(Debug, Default)]
pub(crate) struct UndoAttempt {
    /// Taken back, or there was nothing to take back; with what is said of it.
    pub(crate) done: Vec<(Undo, Undone)>,
    /// Still to be taken back, oldest first.
    pub(crate) left: Vec<Undo>,
    /// Why the first of them could not be.
    pub(crate) failure: Option<Error>,
}

impl Unwind {
    /// Begins with what an earlier run of the session may have left, which is now this run's.
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        tracker: TaskTracker,
        journal: Arc<Journal>,
        owner: SessionId,
        record: Record,
    ) -> Self {
        let inherited = record.undos.iter().map(|undo| {
            let settled = CancellationToken::new();
            settled.cancel();
            Effect {
                undo: Some(undo.clone()),
                settled,
                in_doubt: Arc::default(),
            }
        });
        Self {
            engine,
            tracker,
            journal,
            owner,
            state: Mutex::new(State {
                effects: inherited.collect(),
                record,
            }),
        }
    }

    /// Writes down that the run has begun, so that it is not forgotten even before its first effect.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        let (journal, owner, record) = (
            Arc::clone(&self.journal),
            self.owner,
            self.state().record.clone(),
        );
        self.effect(None, async move {
            journal.write(owner, record).await;
            Ok(())
        })
        .await
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
        let in_doubt = Arc::new(AtomicBool::new(false));
        let doubt = Arc::clone(&in_doubt);
        let record = {
            let mut state = self.state();
            // A network goes when all that may use it is gone, whatever was made first; a run may look for it often.
            let is_network = matches!(undo, Some(Undo::RemoveNetwork { .. }));
            let is_known = |undo: &Undo| is_network && state.record.undos.contains(undo);
            let undo = undo.filter(|undo| !is_known(undo));
            let place = if is_network {
                0
            } else {
                state.record.undos.len()
            };
            if let Some(undo) = undo.clone() {
                state.record.undos.insert(place, undo);
            }
            let record = undo.is_some().then(|| state.record.clone());
            let place = if is_network { 0 } else { state.effects.len() };
            let effect = Effect {
                undo,
                settled,
                in_doubt,
            };
            state.effects.insert(place, effect);
            record
        };
        let (journal, owner) = (Arc::clone(&self.journal), self.owner);
        let (sender, answer) = oneshot::channel();
        self.tracker.spawn(async move {
            let _settles_when_done = guard;
            if let Some(record) = record {
                journal.write(owner, record).await;
            }
            let answer = call.await;
            if let Err(Error::EngineUnavailable { .. }) = answer {
                doubt.store(true, Ordering::SeqCst);
            }
            // A run that has ended does not hear the answer.
            let _ = sender.send(answer);
        });
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a call to the engine was lost".into())))
    }

    /// Keeps all effects: the run has come to its end.
    pub(super) async fn forget(&self) {
        self.take();
        self.journal.forget(self.owner).await;
    }

    /// Takes all effects back, newest first, and says what came of each. An effect that has not settled in time, or whose
    /// undo is not done when the `patience` of the user ends, is left for later, and with it all that are older: what it
    /// makes may use what they made.
    pub(super) async fn run(
        &self,
        patience: impl Future<Output = ()>,
    ) -> (Vec<Undone>, PendingUndos) {
        let mut patience = pin!(patience);
        let (effects, record) = self.take();
        let all_settled = async {
            for effect in &effects {
                effect.settled.cancelled().await;
            }
        };
        // What has not settled by now is told below.
        let mut is_late = tokio::select! {
            () = &mut patience => true,
            _ = tokio::time::timeout(SETTLE_LIMIT, all_settled) => false,
        };

        let mut undone = Vec::new();
        let mut pending = PendingUndos {
            engine: Arc::clone(&self.engine),
            journal: Arc::clone(&self.journal),
            owner: self.owner,
            record,
            effects: Vec::new(),
        };
        for mut effect in effects.into_iter().rev() {
            is_late |= !effect.settled.is_cancelled();
            let Some(undo) = effect.undo.clone() else {
                if is_late {
                    pending.effects.push(effect);
                }
                continue;
            };
            let attempt = if is_late {
                None
            } else {
                let attempt = self.attempt(&mut effect, undo.clone());
                // It is late from then on, so that nobody asks again for an end that has come.
                tokio::select! {
                    biased;
                    done = attempt => Some(done),
                    () = &mut patience => None,
                }
            };
            is_late |= attempt.is_none();
            let failure = match attempt {
                Some(Ok(Some(done))) => {
                    undone.push(done);
                    continue;
                }
                Some(Ok(None)) => {
                    if effect.in_doubt.load(Ordering::SeqCst) {
                        pending.effects.push(effect);
                    }
                    continue;
                }
                Some(Err(error)) => {
                    log::warn!("{undo} failed: {error}");
                    error.to_string()
                }
                None => {
                    "the engine has not answered yet; it is taken back as soon as it does".into()
                }
            };
            undone.push(Undone {
                what: undo.to_string(),
                failure: Some(failure),
            });
            pending.effects.push(effect);
        }
        (undone, pending)
    }

    /// Begins to take an effect back, which counts as settled again when that has ended: it goes on when
    /// nobody waits for it any more.
    async fn attempt(&self, effect: &mut Effect, undo: Undo) -> Result<Option<Undone>, Error> {
        let settled = CancellationToken::new();
        let guard = settled.clone().drop_guard();
        effect.settled = settled;
        let (engine, owner) = (Arc::clone(&self.engine), self.owner);
        let attempt = self.tracker.spawn(async move {
            let _settles_when_done = guard;
            undo.attempt(&*engine, owner).await
        });
        attempt
            .await
            .unwrap_or_else(|_| Err(Error::Internal("an undo was lost".into())))
    }

    fn take(&self) -> (Vec<Effect>, Record) {
        let mut state = self.state();
        (mem::take(&mut state.effects), state.record.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl PendingUndos {
    /// Takes back each effect when it has settled, tries once more what failed, and writes down what is
    /// left. The session's next run must wait for this.
    pub(crate) async fn finish(self) -> UndoAttempt {
        let all_settled = async {
            for effect in &self.effects {
                effect.settled.cancelled().await;
            }
        };
        let settled = tokio::time::timeout(LATE_LIMIT, all_settled).await;
        let undos = self.effects.iter().rev();
        let undos: Vec<_> = undos.filter_map(Effect::undo_as_known).collect();
        if settled.is_err() {
            // The journal has them all already, and they are tried again from there.
            return UndoAttempt {
                left: undos,
                ..UndoAttempt::default()
            };
        }
        let record = self.record.ended(undos);
        let in_doubt = |effect: &Effect| effect.in_doubt.load(Ordering::SeqCst);
        let if_absent = if self.effects.iter().any(in_doubt) {
            IfAbsent::MayAppear
        } else {
            IfAbsent::Done
        };
        take_back(&*self.engine, &self.journal, self.owner, record, if_absent).await
    }
}

/// Attempts what a record holds, newest first, and writes down what is left, or forgets the record.
pub(crate) async fn take_back(
    engine: &dyn Engine,
    journal: &Arc<Journal>,
    owner: SessionId,
    record: Record,
    if_absent: IfAbsent,
) -> UndoAttempt {
    let mut attempted = UndoAttempt::default();
    for undo in record.undos.iter().rev() {
        match undo.attempt(engine, owner).await {
            Ok(None) if if_absent == IfAbsent::MayAppear => attempted.left.insert(0, undo.clone()),
            Ok(done) => {
                let done = done.unwrap_or_else(|| undo.undone());
                attempted.done.push((undo.clone(), done));
            }
            Err(error) => {
                log::warn!("{undo} failed: {error}");
                attempted.failure.get_or_insert(error);
                attempted.left.insert(0, undo.clone());
            }
        }
    }
    if attempted.left.is_empty() {
        journal.forget(owner).await;
    } else {
        let undos = attempted.left.clone();
        journal.write(owner, record.ended(undos)).await;
    }
    attempted
}

impl Undo {
    /// Says that the effect was taken back, for people.
    fn undone(&self) -> Undone {
        let what = match self {
            Self::RemoveContainer { name, .. } => format!("Removed container `{name}`"),
            Self::RemoveVolume { name, .. } => format!("Removed volume `{name}`"),
            Self::RemoveNetwork { name } => format!("Removed network `{name}`"),
            Self::StopContainer { name, .. } => format!("Stopped container `{name}`"),
            Self::StartContainer { name, .. } => format!("Started container `{name}` again"),
            Self::PauseContainer { name, .. } => format!("Paused container `{name}` again"),
            Self::RestoreContainer { name, .. } => format!("Put back container `{name}`"),
        };
        Undone {
            what,
            failure: None,
        }
    }

    /// Says what went with a container that was removed.
    fn undone_with(&self, container: &ContainerFacts, owner: SessionId) -> Undone {
        let volumes = container.volumes.iter();
        let others = volumes.filter(|it| !owner.is_volume_name(&it.name));
        let with = match others.count() {
            0 => String::new(),
            1 => ", and a volume that its image declared".to_owned(),
            count => format!(", and {count} volumes that its image declared"),
        };
        let Undone { what, failure } = self.undone();
        Undone {
            what: what + &with,
            failure,
        }
    }

    /// Takes the effect back and says so; `None` when there was nothing to take back. What bears the name
    /// and is not the session's is somebody else's, and stays, whatever the journal says.
    async fn attempt(
        &self,
        engine: &dyn Engine,
        owner: SessionId,
    ) -> Result<Option<Undone>, Error> {
        let find = async |name: &str| {
            let found = engine.container(name).await?;
            Ok::<_, Error>(found.filter(|container| container.belongs_to(owner)))
        };
        let state_of = async |name: &str| Ok(find(name).await?.map(|container| container.state));
        let attempt = async {
            let was_there = match self {
                Self::RemoveContainer { name, spare } => match find(name).await? {
                    Some(container) if spare.as_ref() != Some(&container.id) => {
                        let existed = engine.remove_container(&container.id).await?;
                        return Ok(existed.then(|| self.undone_with(&container, owner)));
                    }
                    Some(_) | None => false,
                },
                Self::RemoveVolume { name, .. } if !owner.is_volume_name(name) => false,
                Self::RemoveVolume {
                    name,
                    may_lack_labels,
                } => match engine.volume(name).await? {
                    Some(labels)
                        if labels::belong_to(&labels, owner)
                            || (*may_lack_labels && labels.is_empty()) =>
                    {
                        engine.remove_volume(name).await?
                    }
                    Some(_) | None => false,
                },
                Self::RemoveNetwork { name } => {
                    let networks = engine.networks().await?;
                    let is_ours = networks.iter().any(|network| network.name == *name);
                    is_ours && engine.remove_network(name).await?
                }
                Self::StopContainer { id, .. } => match state_of(id).await? {
                    Some(ContainerState::Running | ContainerState::Paused) => {
                        engine.stop_container(id, UNDO_GRACE).await?;
                        true
                    }
                    Some(_) | None => false,
                },
                Self::StartContainer { id, .. } => match find(id).await? {
                    Some(container)
                        if matches!(
                            container.state,
                            ContainerState::Created | ContainerState::Exited
                        ) =>
                    {
                        network::start_again(engine, &container, owner).await?;
                        true
                    }
                    Some(_) | None => false,
                },
                Self::PauseContainer { id, .. } => match state_of(id).await? {
                    Some(ContainerState::Running) => {
                        engine.pause_container(id).await?;
                        true
                    }
                    Some(_) | None => false,
                },
                Self::RestoreContainer { name, aside } => match state_of(aside).await? {
                    Some(_) => {
                        engine.rename_container(aside, name).await?;
                        true
                    }
                    None => false,
                },
            };
            if !was_there {
                // This is believed only of the engine that the effect was on: another may have been put in its place.
                engine.facts().await?;
            }
            Ok(was_there.then(|| self.undone()))
        };
        tokio::time::timeout(UNDO_LIMIT, attempt)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Error::EngineSilent {
                    operation: "take it back".to_owned(),
                    limit: UNDO_LIMIT,
                })
            })
    }
}
