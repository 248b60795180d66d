//! Who hears every event, and notes whatever breaks a promise.

use std::collections::BTreeMap;

use cove_core::engine::ContainerState;
use cove_core::error::ErrorReport;
use cove_core::event::{Phase, SessionEvent, Undone};
use cove_core::session::SessionId;

use super::world::World;
use crate::support::{progress_of, seq_of};

/// The last that was told of a session.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Nothing,
    Progress(f64),
    Ready,
    Failed(ErrorReport, Vec<Undone>),
    Cancelled(Vec<Undone>),
}

/// What was told of one session by one start of the app.
#[derive(Debug, Clone)]
pub(super) struct Tale {
    pub(super) seq: u64,
    pub(super) told: Told,
    pub(super) phase: Phase,
    /// How many runs have ended.
    pub(super) ends: usize,
    /// The ends that the model has not looked at yet.
    pub(super) fresh: Vec<Told>,
}

/// Hears every event, and notes whatever breaks a promise.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) tales: BTreeMap<SessionId, Tale>,
    pub(super) broken: Vec<String>,
    pub(super) figures: Figures,
}

/// What the walks have come by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) walks: usize,
    pub(super) steps: usize,
    pub(super) events: usize,
    pub(super) ready: usize,
    pub(super) failed: usize,
    pub(super) cancelled: usize,
}

impl Figures {
    pub(super) fn add(&mut self, more: &Self) {
        self.events += more.events;
        self.ready += more.ready;
        self.failed += more.failed;
        self.cancelled += more.cancelled;
    }
}

impl Witness {
    pub(super) fn hear(&mut self, event: &SessionEvent, world: &World) {
        self.figures.events += 1;
        match event {
            SessionEvent::Progress(_)
            | SessionEvent::Export(_)
            | SessionEvent::Changed(_)
            | SessionEvent::Transfer(_) => {}
            SessionEvent::Ready(_) => self.figures.ready += 1,
            SessionEvent::Failed(_) => self.figures.failed += 1,
            SessionEvent::Cancelled(_) => self.figures.cancelled += 1,
        }
        let id = event.session_id();
        let tale = self.tales.entry(id).or_insert(Tale {
            seq: 0,
            told: Told::Nothing,
            phase: Phase::Starting,
            ends: 0,
            fresh: Vec::new(),
        });
        let mut check = |holds: bool, promise: &str| {
            if !holds {
                self.broken
                    .push(format!("{promise}: {event:?} after {:?}", tale.told));
            }
        };
        check(seq_of(event) > tale.seq, "`seq` rises");
        let is_within = matches!(tale.told, Told::Progress(_));
        let (percent, phase) = match tale.told {
            Told::Progress(percent) => (percent, tale.phase),
            Told::Nothing | Told::Ready | Told::Failed(..) | Told::Cancelled(_) => {
                (0.0, Phase::Starting)
            }
        };
        if let Some((now, progress)) = progress_of(event) {
            let (low, high) = now.band();
            check(
                (low..=high).contains(&progress.percent),
                "percent is in its phase's band",
            );
            check(
                progress.percent >= percent && now >= phase,
                "percent and phase never fall",
            );
            check(
                progress.percent < 100.0 || event.is_terminal(),
                "only ready is 100 percent",
            );
            tale.phase = now;
        }
        // A run that is cancelled at once has nothing else to tell.
        let may_be_alone = matches!(
            event,
            SessionEvent::Progress(_) | SessionEvent::Cancelled(_) | SessionEvent::Changed(_)
        );
        check(is_within || may_be_alone, "a run has one terminal event");
        tale.seq = seq_of(event);
        tale.told = match event {
            SessionEvent::Progress(event) => Told::Progress(event.progress.percent),
            SessionEvent::Ready(_) => Told::Ready,
            SessionEvent::Failed(event) => Told::Failed(event.error.clone(), event.undone.clone()),
            SessionEvent::Cancelled(event) => Told::Cancelled(event.undone.clone()),
            SessionEvent::Export(_) | SessionEvent::Changed(_) | SessionEvent::Transfer(_) => {
                tale.told.clone()
            }
        };
        if event.is_terminal() {
            tale.ends += 1;
            tale.fresh.push(tale.told.clone());
        }
        // A look at a real engine takes long, and the container may die meanwhile.
        if let (SessionEvent::Ready(_), World::MadeUp(engine)) = (event, world) {
            let state = engine.container_state(&id.resource_name());
            if state != Some(ContainerState::Running) {
                self.broken
                    .push(format!("ready, and the container is {state:?}"));
            }
        }
    }
}
