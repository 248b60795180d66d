//! Estimates: how far a run is, how long it will still take and how sure that is, and in the end where
//! its time went. Pure: messages and times come in, numbers go out; there is no clock and no I/O.
//!
//! [`PullTracker`] adds up the layers of a pull, which several runs may share. [`Estimator`] follows
//! one run through its phases. [`History`] keeps samples of earlier runs.
//!
//! Words of statistics: a *quantile* P90 is what nine in ten stay below; a duration is *log-logistic* and a
//! speed *log-normal*, which both are always positive and now and then very large; *coverage* is how often a
//! range holds what came.

mod calibration;
mod display;
mod forecast;
mod history;
mod line;
mod pull;
mod queue;
mod rate;
mod report;
mod spread;
mod stalls;

pub use self::calibration::{Cell, TAILS, Unrest, score};
pub use self::forecast::Forecast;
pub use self::history::{
    History, ImageSource, LayerMemory, PullSample, PullUsual, RunKind, RunSample, Shape, Usual,
};
pub use self::line::LineFit;
pub use self::pull::PullTracker;
pub use self::spread::Spread;

use std::time::Duration;

use self::display::{Display, Figure, Silence};
use crate::progress::{FinishedPhase, Phase, Progress, PullProgress};
use crate::timing::{RunOutcome, TimingReport};

/// How fast a phase without evidence of its own goes through its band: after the usual time four fifths
/// of it are over, `4x / (1 + 4x)`. The curve never reaches the end, so a slow phase goes on moving.
const TIME_CURVE: f64 = 4.0;
/// A phase that usually takes less than this is drawn as if it took this long.
const SHORTEST_DRAWN_S: f64 = 0.3;

/// Shares of a pull at which its forecasts are kept to be scored, and how long after them at most.
const SCORED_AT: [f64; 3] = [0.25, 0.5, 0.75];
const SCORED_WITHIN: f64 = 0.2;

/// A pull as a run sees it: the layers, and the time on the pull's own clock, which began before the
/// run's where the run joined a pull that was under way.
#[derive(Debug, Clone, Copy)]
pub struct PullView<'a> {
    /// The layers.
    pub tracker: &'a PullTracker,
    /// Time since the pull began.
    pub at: Duration,
    /// Whether another run had begun it.
    pub joined: bool,
}

/// Follows one run. All times count from its beginning.
#[derive(Debug, Clone)]
pub struct Estimator {
    phase: Phase,
    phase_began: Duration,
    last_evidence: Duration,
    finished: Vec<FinishedPhase>,
    /// Known when the run has inspected the engine.
    usual: Option<Usual>,
    /// The bar never falls.
    percent: f64,
    display: Display,
    /// What was forecast when a quarter, a half and three quarters of the pull were done, and when.
    told: [Option<(Duration, Forecast)>; 3],
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            phase_began: Duration::ZERO,
            last_evidence: Duration::ZERO,
            finished: Vec::new(),
            usual: None,
            percent: 0.0,
            display: Display::default(),
            told: [None; 3],
        }
    }
}

impl Estimator {
    /// Takes in what is usual for the run, as soon as it is known what kind of run it is.
    pub fn expect(&mut self, usual: Usual) {
        self.usual = Some(usual);
    }

    /// Enters a phase.
    pub fn enter(&mut self, phase: Phase, at: Duration) {
        if phase > self.phase {
            self.finished.push(FinishedPhase {
                phase: self.phase,
                elapsed_ms: as_ms(at.saturating_sub(self.phase_began)),
            });
        }
        self.phase = phase;
        self.phase_began = at;
        self.last_evidence = at;
    }

    /// Takes note that something happened that counts as progress.
    pub fn note(&mut self, at: Duration) {
        self.last_evidence = at;
    }

    /// Returns the phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns what is usual for the run's pull.
    #[must_use]
    pub fn pull_usual(&self) -> Option<&PullUsual> {
        self.usual.as_ref()?.pull.as_ref()
    }

    /// Returns how long nothing has happened that counts as progress.
    #[must_use]
    pub fn idle(&self, at: Duration, pull: Option<PullView<'_>>) -> Duration {
        let idle = at.saturating_sub(self.last_evidence);
        match pull {
            Some(pull) if self.phase == Phase::PullingImage => idle.min(pull.tracker.idle(pull.at)),
            _ => idle,
        }
    }

    /// Returns how far the run is, and what to show of the time left.
    pub fn progress(&mut self, at: Duration, pull: Option<PullView<'_>>) -> Progress {
        let pulled = pull.map(|pull| pull.tracker.progress(pull.at));
        self.percent = self.percent.max(self.percent_at(at, pulled));
        let idle = self.idle(at, pull);
        let Figure { eta, ms, bounds_ms } = match self.phase {
            Phase::Ready => Figure::none_left(),
            Phase::Starting
            | Phase::PullingImage
            | Phase::CreatingVolume
            | Phase::CreatingContainer
            | Phase::StartingContainer => {
                let forecast = self.forecast(at, pull);
                if let (Some(forecast), Some(pulled)) = (forecast, pulled) {
                    self.keep_for_scores(at, forecast, pulled.fraction);
                }
                let adapted = self.usual.as_ref().map(|usual| usual.adapted);
                let forecast = forecast
                    .map(|forecast| forecast.widened(adapted.unwrap_or_default().factors()));
                let awaited = pull.filter(|pull| {
                    self.phase == Phase::PullingImage && !pull.tracker.works_in_silence()
                });
                let silence = awaited.map(|pull| Silence {
                    idle,
                    layer: pull.tracker.waits_for(),
                });
                self.display.show(at, forecast, silence)
            }
        };
        Progress {
            percent: self.percent,
            eta_ms: ms,
            eta,
            eta_low_ms: bounds_ms.map(|(low, _)| low),
            eta_high_ms: bounds_ms.map(|(_, high)| high),
            elapsed_ms: as_ms(at),
            idle_ms: as_ms(idle),
            finished: self.finished.clone(),
            pull: pulled,
        }
    }

    /// Keeps a forecast to learn from, when the run is over, how good it was.
    fn keep_for_scores(&mut self, at: Duration, forecast: Forecast, fraction: f64) {
        if self.phase != Phase::PullingImage {
            return;
        }
        for (told, share) in self.told.iter_mut().zip(SCORED_AT) {
            if told.is_none() && (share..share + SCORED_WITHIN).contains(&fraction) {
                *told = Some((at, forecast));
            }
        }
    }

    /// Returns the time left to ready, before any rule of display; `None` where there is no honest
    /// answer: before the run has inspected the engine, when a pull has nothing to be judged by, and when
    /// a phase is overdue that shows no evidence of its own.
    #[must_use]
    pub fn forecast(&self, at: Duration, pull: Option<PullView<'_>>) -> Option<Forecast> {
        // What lies ahead is not known before the run has inspected the engine.
        let usual = self.usual.as_ref()?;
        let elapsed = at.saturating_sub(self.phase_began).as_secs_f64();
        let mut all = Forecast::default();
        for phase in Phase::WORKING {
            if phase < self.phase {
                continue;
            }
            let elapsed = if phase == self.phase { elapsed } else { 0.0 };
            let left = match (phase, &usual.pull) {
                (Phase::PullingImage, Some(usual)) => pull.map_or_else(
                    || PullTracker::default().forecast(Duration::ZERO, usual),
                    |pull| pull.tracker.forecast(pull.at, usual),
                )?,
                _ => usual.of(phase)?.left_after(elapsed)?,
            };
            all = all.then(left);
        }
        Some(all)
    }

    /// Returns where the time of the run went, that ends `at` this time.
    #[must_use]
    pub fn report(
        &self,
        at: Duration,
        outcome: RunOutcome,
        pull: Option<PullView<'_>>,
    ) -> TimingReport {
        let mut phases = self.finished.clone();
        if self.phase != Phase::Ready {
            phases.push(FinishedPhase {
                phase: self.phase,
                elapsed_ms: as_ms(at.saturating_sub(self.phase_began)),
            });
        }
        report::report(outcome, at, &phases, self.usual.as_ref(), pull)
    }

    /// Returns the sample that the run adds to the history, now that it has succeeded. A pull that another
    /// run had begun is in that run's sample.
    #[must_use]
    pub fn sample(&self, pull: Option<PullView<'_>>) -> RunSample {
        let phases = Phase::WORKING.map(|phase| {
            let says_something = phase != Phase::PullingImage || pull.is_none();
            let finished = self
                .finished
                .iter()
                .find(|finished| finished.phase == phase);
            let elapsed = finished.filter(|_| says_something)?.elapsed_ms;
            Some(Duration::from_millis(elapsed).as_secs_f64())
        });
        RunSample {
            phases,
            pull: pull
                .filter(|pull| !pull.joined)
                .map(|pull| pull.tracker.sample()),
            scores: self.scores(),
        }
    }

    /// Returns how good the forecasts during the pull were, now that the run is over.
    fn scores(&self) -> Vec<f64> {
        if self.phase != Phase::Ready {
            return Vec::new();
        }
        let told = self.told.iter().flatten();
        told.map(|(at, forecast)| {
            let truth = self.phase_began.saturating_sub(*at).as_secs_f64();
            calibration::score(*forecast, truth)
        })
        .collect()
    }

    fn percent_at(&self, at: Duration, pulled: Option<PullProgress>) -> f64 {
        let (first, last) = self.phase.band();
        let share = if let (Phase::PullingImage, Some(pulled)) = (self.phase, pulled) {
            pulled.fraction
        } else {
            let usual = self.usual.as_ref().and_then(|usual| usual.of(self.phase));
            let usual = usual.map_or(Duration::from_secs(1), |spread| spread.middle());
            share_by_time(at.saturating_sub(self.phase_began), usual)
        };
        first + (last - first) * share.clamp(0.0, 1.0)
    }
}

impl Figure {
    fn none_left() -> Self {
        Self {
            eta: crate::progress::Eta::Point { ms: 0 },
            ms: Some(0),
            bounds_ms: Some((0, 0)),
        }
    }
}

/// Returns how much of a phase without evidence of its own is over, 0 to 1 (exclusive), by time.
fn share_by_time(elapsed: Duration, usual: Duration) -> f64 {
    let times = elapsed.as_secs_f64() / usual.as_secs_f64().max(SHORTEST_DRAWN_S);
    TIME_CURVE * times / (1.0 + TIME_CURVE * times)
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of bytes or milliseconds needs no more than 53 bits"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Eta;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is usual after three runs with these seconds for the phases.
    fn usual(source: ImageSource, seconds: [f64; 5]) -> Usual {
        let kind = RunKind {
            engine: "engine".to_owned(),
            registry: "registry".to_owned(),
            image: "image".to_owned(),
            source,
        };
        let mut history = History::default();
        for _ in 0..3 {
            let sample = RunSample {
                phases: seconds.map(Some),
                ..RunSample::default()
            };
            history.learn(&kind, sample);
        }
        history.usual(&kind)
    }

    #[test]
    fn the_time_left_is_that_of_all_remaining_phases() {
        let mut run = Estimator::default();
        run.expect(usual(ImageSource::Engine, [1.0, 1.0, 2.0, 3.0, 4.0]));
        assert_eq!(run.progress(s(0), None).eta, Eta::Point { ms: 11_000 });
        run.enter(Phase::CreatingContainer, s(4));
        run.enter(Phase::StartingContainer, s(7));
        let left = run.forecast(s(8), None).unwrap();
        assert!((3.0..3.3).contains(&left.mid), "{left:?}");
    }

    #[test]
    fn the_first_run_ever_says_nothing_rather_than_a_default() {
        let kind = RunKind {
            engine: "engine".to_owned(),
            registry: "registry".to_owned(),
            image: "image".to_owned(),
            source: ImageSource::Registry,
        };
        let mut run = Estimator::default();
        run.expect(History::default().usual(&kind));
        run.enter(Phase::PullingImage, s(1));
        let progress = run.progress(s(2), None);
        assert_eq!((progress.eta, progress.eta_ms), (Eta::Calculating, None));
    }

    #[test]
    fn a_phase_that_is_overdue_without_evidence_has_no_answer() {
        let mut run = Estimator::default();
        run.expect(usual(ImageSource::Engine, [0.0, 0.0, 0.0, 0.0, 2.0]));
        run.enter(Phase::StartingContainer, s(0));
        assert!(run.forecast(s(1), None).is_some());
        assert_eq!(run.forecast(s(30), None), None);
    }

    #[test]
    fn a_slow_phase_goes_on_moving_and_never_leaves_its_band() {
        let mut run = Estimator::default();
        run.enter(Phase::StartingContainer, s(0));
        let mut last = 0.0;
        for second in 0..20 {
            let percent = run.progress(s(second), None).percent;
            assert!(
                percent > last && percent < 90.0,
                "{percent} after {second} s"
            );
            last = percent;
        }
    }

    #[test]
    fn a_pull_that_another_run_began_is_not_counted_twice() {
        let tracker = PullTracker::default();
        let view = |joined| PullView {
            tracker: &tracker,
            at: s(1),
            joined,
        };
        let run = Estimator::default();
        assert!(run.sample(Some(view(false))).pull.is_some());
        assert!(run.sample(Some(view(true))).pull.is_none());
    }
}
