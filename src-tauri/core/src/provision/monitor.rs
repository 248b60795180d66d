//! Where a run is: the one place that turns phases, messages of the pull and the clock into
//! [`Progress`], for events and snapshots alike.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ms_between;
use crate::engine::PullMessage;
use crate::estimate::{self, Expected, History, PullTracker, RunKind};
use crate::progress::{FinishedPhase, Phase, Progress};

/// Watches one run.
#[derive(Debug)]
pub(crate) struct Monitor {
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    phase: Phase,
    message: String,
    started: Instant,
    phase_started: Instant,
    last_evidence: Instant,
    finished: Vec<FinishedPhase>,
    pull: Option<PullTracker>,
    /// Known when the run has looked around.
    expected: Option<Expected>,
    /// For a run that makes everything new: whether the image was on the engine before. Only such
    /// a run teaches how long a run takes.
    lesson: Option<bool>,
    /// The bar never falls.
    percent: f64,
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// Returns the monitor of a run that begins now.
    #[must_use]
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            watched: Mutex::new(Watched {
                phase: Phase::Starting,
                message: "Starting".to_owned(),
                started: now,
                phase_started: now,
                last_evidence: now,
                finished: Vec::new(),
                pull: None,
                expected: None,
                lesson: None,
                percent: 0.0,
            }),
        }
    }

    /// Returns the phase, the figures and the message as they are now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> (Phase, Progress, String) {
        let mut watched = self.lock();
        let progress = watched.progress(Instant::now());
        (watched.phase, progress, watched.message.clone())
    }

    /// Ends the last phase: the session is ready. Returns the figures of the whole run, and what is
    /// to be learned from it, if anything: whether the image was on the engine before, and how long
    /// each phase took.
    #[must_use]
    pub(crate) fn finish(&self) -> (Progress, Option<(bool, [Duration; 5])>) {
        self.enter(Phase::Ready, "Ready".to_owned());
        let mut watched = self.lock();
        let durations = Phase::WORKING.map(|phase| watched.duration_of(phase));
        let lesson = watched.lesson.map(|cached| (cached, durations));
        (watched.progress(Instant::now()), lesson)
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Returns how long nothing has happened that counts as progress.
    pub(super) fn idle(&self) -> Duration {
        self.lock().last_evidence.elapsed()
    }

    pub(super) fn enter(&self, phase: Phase, message: String) {
        let now = Instant::now();
        let mut watched = self.lock();
        if phase > watched.phase {
            let elapsed_ms = ms_between(watched.phase_started, now);
            let finished = FinishedPhase {
                phase: watched.phase,
                elapsed_ms,
            };
            watched.finished.push(finished);
        }
        watched.phase = phase;
        watched.message = message;
        watched.phase_started = now;
        watched.last_evidence = now;
    }

    pub(super) fn say(&self, message: impl Into<String>) {
        let mut watched = self.lock();
        watched.message = message.into();
        watched.last_evidence = Instant::now();
    }

    /// Takes in what the run found when it looked around.
    pub(super) fn expect(&self, expected: Expected, cached: bool, is_new: bool) {
        let mut watched = self.lock();
        watched.expected = Some(expected);
        watched.lesson = is_new.then_some(cached);
    }

    pub(super) fn pulled(&self, message: &PullMessage) {
        let now = Instant::now();
        let mut watched = self.lock();
        let at = now.saturating_duration_since(watched.phase_started);
        if watched.pull.get_or_insert_default().take(message, at) {
            watched.last_evidence = now;
        }
    }

    pub(super) fn pull_finished(&self) {
        if let Some(tracker) = &mut self.lock().pull {
            tracker.finish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn progress(&mut self, now: Instant) -> Progress {
        let in_phase = now.saturating_duration_since(self.phase_started);
        let pulling = self.phase == Phase::PullingImage;
        let at = if pulling {
            in_phase
        } else {
            self.duration_of(Phase::PullingImage)
        };
        let pull = self.pull.as_ref().map(|tracker| tracker.progress(at));
        let pulled = pull.filter(|_| pulling).map(|pull| pull.fraction);
        let (percent, eta) = match self.phase {
            Phase::Ready => (100.0, Some(Duration::ZERO)),
            phase => {
                let defaults;
                let expected = if let Some(expected) = &self.expected {
                    expected
                } else {
                    defaults = History::default().expected(RunKind {
                        image: "",
                        cached: false,
                    });
                    &defaults
                };
                let share =
                    pulled.unwrap_or_else(|| estimate::share_by_time(in_phase, expected.of(phase)));
                // Before the run has looked around it does not know what lies ahead.
                let eta = self
                    .expected
                    .and_then(|expected| estimate::remaining(&expected, phase, in_phase, pulled));
                (estimate::percent(phase, share), eta)
            }
        };
        self.percent = self.percent.max(percent);
        Progress {
            percent: self.percent,
            eta_ms: eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            elapsed_ms: ms_between(self.started, now),
            idle_ms: ms_between(self.last_evidence, now),
            finished: self.finished.clone(),
            pull,
        }
    }

    /// Returns how long a phase took, once it is over.
    fn duration_of(&self, phase: Phase) -> Duration {
        let finished = self
            .finished
            .iter()
            .find(|finished| finished.phase == phase);
        Duration::from_millis(finished.map_or(0, |finished| finished.elapsed_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LayerStep;

    #[tokio::test(start_paused = true)]
    async fn percent_rises_through_the_bands_and_is_100_only_when_ready() {
        let monitor = Monitor::new();
        let mut last = 0.0;
        for phase in Phase::WORKING {
            monitor.enter(phase, String::new());
            for _ in 0..50 {
                let (_, progress, _) = monitor.snapshot();
                let (first, end) = phase.band();
                assert!(progress.percent >= last, "{phase:?}");
                assert!(
                    (first..end).contains(&progress.percent),
                    "{phase:?} {progress:?}"
                );
                last = progress.percent;
                tokio::time::advance(Duration::from_millis(500)).await;
            }
        }
        let (progress, _) = monitor.finish();
        assert!((progress.percent - 100.0).abs() < f64::EPSILON);
        assert_eq!(progress.finished.len(), 5);
        assert!(
            progress
                .finished
                .iter()
                .all(|phase| phase.elapsed_ms == 25_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_moves_counts_as_progress() {
        let monitor = Monitor::new();
        monitor.enter(Phase::PullingImage, String::new());
        let message = PullMessage {
            layer: "a".into(),
            step: LayerStep::Downloading {
                current: 1,
                total: 9,
            },
        };
        monitor.pulled(&message);
        tokio::time::advance(Duration::from_secs(7)).await;
        monitor.pulled(&message);
        let (_, progress, _) = monitor.snapshot();
        assert_eq!(progress.idle_ms, 7_000);
        assert_eq!(monitor.idle(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_remaining_time_before_the_run_has_looked_around() {
        let monitor = Monitor::new();
        assert_eq!(monitor.snapshot().1.eta_ms, None);
        let kind = RunKind {
            image: "x",
            cached: true,
        };
        monitor.expect(History::default().expected(kind), true, true);
        monitor.enter(Phase::PullingImage, String::new());
        monitor.enter(Phase::CreatingVolume, String::new());
        assert_eq!(monitor.snapshot().1.eta_ms, Some(30_000));
    }
}
