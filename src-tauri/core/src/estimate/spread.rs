//! Durations that vary: a middle and a width, learned from samples or assumed.
//!
//! Durations of work are positive, skewed, and now and then very long, so they are taken to follow
//! a log-logistic distribution: its cumulative function `F(t) = 1 / (1 + (t/m)^−β)` and the
//! quantiles of what is left after some time are closed formulas (Kleiber and Kotz, Statistical
//! Size Distributions in Economics and Actuarial Sciences, 2003, section 6.4).

use std::time::Duration;

use super::forecast::Forecast;

/// `ln(9)`: the logit of 0.9, and the distance of P90 from the median in units of the scale.
const LOGIT_P90: f64 = 2.197_224_577_336_22;

/// Past this share of its distribution a duration is overdue: nothing is known of its end.
const OVERDUE: f64 = 0.97;
/// How long a duration may be overdue and still count as about to end, in seconds: work that takes
/// next to no time varies by more than it takes.
const OVERDUE_GRACE_S: f64 = 1.0;

/// The distribution of a duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median in seconds.
    middle: f64,
    /// The scale of the logarithm, `1/β`.
    scale: f64,
}

impl Spread {
    /// Returns a spread by its median in seconds and its P90 as a multiple of the median.
    #[must_use]
    pub fn new(middle: f64, p90_factor: f64) -> Self {
        Self {
            middle: middle.max(0.001),
            scale: p90_factor.max(1.01).ln() / LOGIT_P90,
        }
    }

    /// Returns the median.
    #[must_use]
    pub fn middle(&self) -> Duration {
        Duration::try_from_secs_f64(self.middle).unwrap_or(Duration::MAX)
    }

    /// Returns what is left after some seconds, or `None` when it is overdue.
    #[must_use]
    pub(super) fn left_after(&self, elapsed: f64) -> Option<Forecast> {
        // The share that takes longer still.
        let longer = 1.0 / (1.0 + (elapsed / self.middle).powf(1.0 / self.scale));
        if longer < 1.0 - OVERDUE && elapsed > self.middle + OVERDUE_GRACE_S {
            return None;
        }
        // Quick work that is late has its last moment still before it.
        let longer = longer.max(1.0 - OVERDUE);
        let left = |share: f64| {
            let odds = 1.0 / ((1.0 - share) * longer) - 1.0;
            (self.middle * odds.powf(self.scale) - elapsed).max(0.0)
        };
        Some(Forecast {
            low: left(0.1),
            mid: left(0.5),
            high: left(0.9),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_start_all_of_it_is_left() {
        let left = Spread::new(2.0, 1.5).left_after(0.0).unwrap();
        assert!((left.mid - 2.0).abs() < 1e-9, "{left:?}");
        assert!((left.high - 3.0).abs() < 1e-9, "{left:?}");
        assert!((left.low - 2.0 / 1.5).abs() < 1e-9, "{left:?}");
    }

    #[test]
    fn what_is_left_falls_with_time_and_is_never_less_than_nothing() {
        let spread = Spread::new(2.0, 1.5);
        let mut last = f64::MAX;
        for tenth in 0..20 {
            let left = spread.left_after(f64::from(tenth) / 10.0).unwrap();
            assert!(0.0 <= left.low && left.low <= left.mid && left.mid <= left.high);
            assert!(left.mid < last, "{left:?}");
            last = left.mid;
        }
    }

    #[test]
    fn what_is_long_overdue_has_no_answer() {
        assert_eq!(Spread::new(2.0, 1.5).left_after(10.0), None);
    }

    #[test]
    fn work_of_a_moment_may_be_late_by_a_moment() {
        let spread = Spread::new(0.01, 1.5);
        assert!(spread.left_after(0.9).is_some());
        assert_eq!(spread.left_after(1.1), None);
    }
}
