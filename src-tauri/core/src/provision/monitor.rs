//! Where a run is: the one place that joins phases, the pull and the clock, for events and snapshots
//! alike. What the figures are is `estimate`'s.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::shared_pull::Joined;
use crate::estimate::{Estimator, PullUsual, PullView, RunKind, RunSample, Usual};
use crate::progress::{Phase, Progress};
use crate::timing::{RunOutcome, TimingReport};

/// Watches one run.
#[derive(Debug)]
pub(crate) struct Monitor {
    began: Instant,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    estimator: Estimator,
    message: String,
    pull: Option<Joined>,
    /// The kind of run that this one is a sample of: known for a run that makes everything new, because only
    /// such a run tells how long a run takes.
    sampled_kind: Option<RunKind>,
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
        Self {
            began: Instant::now(),
            watched: Mutex::new(Watched {
                estimator: Estimator::default(),
                message: "Starting".to_owned(),
                pull: None,
                sampled_kind: None,
            }),
        }
    }

    /// Returns the phase, the figures and the message as they are now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> (Phase, Progress, String) {
        let watched = &mut *self.lock();
        let at = self.began.elapsed();
        let progress = watched.with_pull(|estimator, pull| estimator.progress(at, pull));
        (watched.estimator.phase(), progress, watched.message.clone())
    }

    /// Ends the last phase: the session is ready.
    pub(crate) fn finish(&self) {
        self.enter(Phase::Ready, "Ready".to_owned());
    }

    /// Returns the sample that the run adds to the history, once it is finished, if it is one.
    #[must_use]
    pub(crate) fn sample(&self) -> Option<(RunKind, RunSample)> {
        let watched = &mut *self.lock();
        let kind = watched.sampled_kind.clone()?;
        Some((
            kind,
            watched.with_pull(|estimator, pull| estimator.sample(pull)),
        ))
    }

    /// Returns where the time went of a run that ends now.
    #[must_use]
    pub(crate) fn report(&self, outcome: RunOutcome) -> TimingReport {
        let at = self.began.elapsed();
        self.lock()
            .with_pull(|estimator, pull| estimator.report(at, outcome, pull))
    }

    /// Lets go of the pull: the run has ended, and a pull that nobody else waits for ends with it.
    pub(crate) fn leave_pull(&self) {
        self.lock().pull = None;
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().estimator.phase()
    }

    /// Returns how long nothing has happened that counts as progress.
    pub(super) fn idle(&self) -> Duration {
        let at = self.began.elapsed();
        self.lock()
            .with_pull(|estimator, pull| estimator.idle(at, pull))
    }

    pub(super) fn enter(&self, phase: Phase, message: String) {
        let mut watched = self.lock();
        watched.estimator.enter(phase, self.began.elapsed());
        watched.message = message;
    }

    pub(super) fn say(&self, message: impl Into<String>) {
        let mut watched = self.lock();
        watched.message = message.into();
        watched.estimator.note(self.began.elapsed());
    }

    /// Takes in what is usual for the run, and of which kind of run it is a sample.
    pub(super) fn expect(&self, usual: Usual, sampled_kind: Option<RunKind>) {
        let mut watched = self.lock();
        watched.estimator.expect(usual);
        watched.sampled_kind = sampled_kind;
    }

    /// Returns what is usual for the run's pull.
    pub(super) fn pull_usual(&self) -> Option<PullUsual> {
        self.lock().estimator.pull_usual().cloned()
    }

    /// Takes in the pull that the run waits for.
    pub(super) fn watch_pull(&self, pull: Joined) {
        self.lock().pull = Some(pull);
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock()
    }
}

impl Watched {
    fn with_pull<T>(&mut self, work: impl FnOnce(&mut Estimator, Option<PullView<'_>>) -> T) -> T {
        let estimator = &mut self.estimator;
        match &self.pull {
            Some(pull) => pull.look(Instant::now(), |view| work(estimator, Some(view))),
            None => work(estimator, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{History, ImageSource, RunKind};
    use crate::progress::Eta;

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
        monitor.finish();
        let progress = monitor.snapshot().1;
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
    async fn there_is_no_remaining_time_before_the_run_has_looked_around() {
        let monitor = Monitor::new();
        assert_eq!(monitor.snapshot().1.eta, Eta::Calculating);
        let mut history = History::default();
        let kind = RunKind {
            engine: String::new(),
            registry: String::new(),
            image: "x".to_owned(),
            source: ImageSource::Engine,
        };
        let sample = || RunSample {
            phases: [0.0, 0.0, 1.0, 2.0, 3.0].map(Some),
            ..RunSample::default()
        };
        for _ in 0..3 {
            history.learn(&kind, sample());
        }
        monitor.expect(history.usual(&kind), None);
        monitor.enter(Phase::PullingImage, String::new());
        monitor.enter(Phase::CreatingVolume, String::new());
        assert_eq!(monitor.snapshot().1.eta_ms, Some(6_000));
    }
}
