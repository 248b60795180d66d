//! Estimates: how far a pull is, and how long a run will still take. Pure: messages, durations and
//! times come in, numbers go out; there is no clock and no I/O here.

mod history;
mod pull;

pub use self::history::{Expected, History, RunKind};
pub use self::pull::PullTracker;

use std::time::Duration;

use crate::progress::Phase;

/// Share of its band that a phase without evidence of its own has gone through when it has taken as
/// long as expected: `1 − e^(−1.6)`, about 80 %. The curve never reaches the end of the band, so a
/// slow phase goes on moving.
const TIME_CURVE: f64 = 1.6;

/// How long a phase may be overdue and still count as about to end: phases that take next to no time
/// vary by more than they take.
const OVERDUE_GRACE: Duration = Duration::from_secs(1);

/// From this share of a pull on, its own speed tells more than a default.
const ENOUGH_EVIDENCE: f64 = 0.05;

/// Returns the percent within the phase's band for a share of the phase, 0 to 1.
#[must_use]
pub fn percent(phase: Phase, share: f64) -> f64 {
    let (first, last) = phase.band();
    first + (last - first) * share.clamp(0.0, 1.0)
}

/// Returns how much of a phase without evidence of its own is over, 0 to 1 (exclusive), by time.
#[must_use]
pub fn share_by_time(elapsed: Duration, expected: Duration) -> f64 {
    let expected = expected.as_secs_f64().max(0.001);
    1.0 - (-TIME_CURVE * elapsed.as_secs_f64() / expected).exp()
}

/// Returns the time left to ready over all remaining phases, or `None` where there is no honest
/// answer: a phase that is overdue and shows no evidence of its own.
///
/// `elapsed` counts from the start of the current phase; `pulled` is the share of the pull that is
/// done, if there is one.
#[must_use]
pub fn remaining(
    expected: &Expected,
    phase: Phase,
    elapsed: Duration,
    pulled: Option<f64>,
) -> Option<Duration> {
    let by_speed = pulled
        .filter(|share| *share >= ENOUGH_EVIDENCE)
        .map(|share| elapsed.mul_f64((1.0 - share.min(1.0)) / share));
    let left = expected.of(phase).saturating_sub(elapsed);
    let is_overdue = elapsed >= expected.of(phase) + OVERDUE_GRACE;
    let by_history = (!is_overdue).then_some(left);
    let here = match (by_history, by_speed) {
        (Some(history), _) if expected.is_learned(phase) => history,
        (_, Some(speed)) => speed,
        (Some(default), None) => default,
        (None, None) => return None,
    };
    let later = Phase::WORKING.into_iter().filter(|later| *later > phase);
    Some(here + later.map(|later| expected.of(later)).sum::<Duration>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cold() -> RunKind<'static> {
        RunKind {
            image: "docker.io/library/python:3.13",
            cached: false,
        }
    }

    #[track_caller]
    fn check(
        expected: &Expected,
        phase: Phase,
        elapsed: u64,
        pulled: Option<f64>,
        left: Option<u64>,
    ) {
        assert_eq!(
            remaining(expected, phase, s(elapsed), pulled),
            left.map(s),
            "{phase:?}"
        );
    }

    #[test]
    fn the_first_run_ever_counts_on_the_defaults_of_all_remaining_phases() {
        let expected = History::default().expected(cold());
        check(&expected, Phase::Starting, 0, None, Some(62));
        check(&expected, Phase::PullingImage, 0, None, Some(60));
        check(&expected, Phase::PullingImage, 10, None, Some(50));
        check(&expected, Phase::StartingContainer, 5, None, Some(10));
    }

    #[test]
    fn a_pull_without_history_is_judged_by_its_own_speed() {
        let expected = History::default().expected(cold());
        check(&expected, Phase::PullingImage, 10, Some(0.5), Some(10 + 30));
        check(
            &expected,
            Phase::PullingImage,
            100,
            Some(0.5),
            Some(100 + 30),
        );
    }

    #[test]
    fn a_phase_that_is_overdue_without_evidence_has_no_answer() {
        let expected = History::default().expected(cold());
        check(&expected, Phase::PullingImage, 31, None, None);
        check(&expected, Phase::StartingContainer, 16, None, None);
    }

    #[test]
    fn a_phase_that_takes_next_to_no_time_does_not_hide_what_is_known_of_the_others() {
        let mut history = History::default();
        history.learn(cold(), [s(0), s(0), s(0), s(0), s(4)]);
        let expected = history.expected(cold());
        check(&expected, Phase::CreatingVolume, 0, None, Some(4));
        check(&expected, Phase::CreatingVolume, 1, None, None);
    }

    #[test]
    fn history_beats_speed_until_it_is_overdue() {
        let mut history = History::default();
        history.learn(cold(), [s(0), s(20), s(0), s(0), s(1)]);
        let expected = history.expected(cold());
        check(&expected, Phase::PullingImage, 5, Some(0.5), Some(15 + 1));
        check(&expected, Phase::PullingImage, 30, Some(0.5), Some(30 + 1));
    }

    #[test]
    fn a_slow_phase_goes_on_moving_and_never_leaves_its_band() {
        let mut last = 0.0;
        for elapsed in 0..200 {
            let percent = percent(Phase::StartingContainer, share_by_time(s(elapsed), s(15)));
            assert!(
                percent > last && percent < 90.0,
                "{percent} after {elapsed} s"
            );
            last = percent;
            if elapsed == 15 {
                assert!((85.0..87.0).contains(&percent), "{percent}");
            }
            if elapsed > 100 {
                break;
            }
        }
    }
}
