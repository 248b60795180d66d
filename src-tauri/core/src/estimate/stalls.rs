//! How often a line stands still, and how much of what is left that will take.
//!
//! Some lines never do. Those that do are taken to do so by chance, a number of times in a second (a Poisson process) that
//! is learned: with a gamma distribution before, the number that is still to come is
//! negative-binomial (Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, section 2.6).

use super::as_f64;
use super::forecast::{Forecast, Z_P90, normal_cdf};

/// How many lines stand still at times.
const STALLING: f64 = 0.2;
/// How often those do: once in so many seconds, which counts as much as one stall that was seen.
const EVERY_S: f64 = 15.0;
/// How long a stall takes, in seconds, which counts as much as one that was seen.
const LASTS_S: f64 = 5.5;
/// The most stalls that are reckoned with.
const MOST: u32 = 5;
/// Deviates at which a distribution is known, between which it is taken to go straight.
pub(super) const KNOTS: [f64; 9] = [-2.3, -Z_P90, -0.84, -0.4, 0.0, 0.4, 0.84, Z_P90, 2.3];

/// The stalls of a line that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Stalls {
    count: f64,
    seconds: f64,
    /// Seconds in which it moved.
    moved_s: f64,
}

impl Stalls {
    /// Returns these and more.
    pub(super) fn with(self, count: u32, seconds: f64, moved_s: f64) -> Self {
        Self {
            count: self.count + f64::from(count),
            seconds: self.seconds + seconds,
            moved_s: self.moved_s + moved_s,
        }
    }

    /// Returns whether there were any.
    pub(super) fn were_seen(self) -> bool {
        self.count > 0.0
    }

    /// Adds the stalls that are to be expected within some seconds of movement to a duration, of which the
    /// seconds at [`KNOTS`] are given without any.
    pub(super) fn added_to(self, seconds: [f64; 9], within: f64) -> Forecast {
        let lasts = (LASTS_S + self.seconds) / (1.0 + self.count);
        let odds = self.odds(within);
        let below = |time: f64| -> f64 {
            let stalls = odds.iter().enumerate();
            stalls
                .map(|(count, odds)| {
                    odds * share_below(&seconds, time - as_f64(count as u64) * lasts)
                })
                .sum()
        };
        let [first, .., last] = seconds;
        let quantile = |share: f64| {
            let (mut low, mut high) = (first, last + f64::from(MOST) * lasts);
            for _ in 0..30 {
                let middle = f64::midpoint(low, high);
                if below(middle) < share {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            f64::midpoint(low, high)
        };
        Forecast {
            low: quantile(0.1),
            mid: quantile(0.5),
            high: quantile(0.9),
        }
    }

    /// Returns the probabilities that none, one, two … stalls come within some seconds of movement.
    fn odds(self, within: f64) -> [f64; MOST as usize + 1] {
        let (shape, rate) = (1.0 + self.count, EVERY_S + self.moved_s);
        let stalls = if self.count > 0.0 {
            1.0
        } else {
            // The longer it has not, the less it is one that does.
            let silent = STALLING * EVERY_S / rate;
            silent / (silent + 1.0 - STALLING)
        };
        let ahead = within / (rate + within);
        let mut next = (1.0 - ahead).powf(shape);
        let mut odds = [0.0; MOST as usize + 1];
        let mut count = 0.0;
        let mut rest = 1.0;
        for odds in &mut odds {
            *odds = stalls * next;
            rest -= *odds;
            next *= (shape + count) / (count + 1.0) * ahead;
            count += 1.0;
        }
        if let Some(none) = odds.first_mut() {
            // Those that do not stall, and the few that do so more often than is reckoned with.
            *none += rest;
        }
        odds
    }
}

/// Returns the share of a distribution that is below a value, by its values at [`KNOTS`].
fn share_below(values: &[f64; 9], value: f64) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    for (knot, at) in KNOTS.iter().zip(values) {
        if value < *at {
            let Some((low, below)) = before else {
                return 0.0;
            };
            let share = (value - below) / (at - below);
            return normal_cdf(low + share * (knot - low));
        }
        before = Some((*knot, *at));
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten_seconds_after(stalls: Stalls) -> Forecast {
        stalls.added_to(KNOTS.map(|knot| 10.0 + knot / 2.0), 10.0)
    }

    #[test]
    fn the_odds_of_all_numbers_of_stalls_are_one() {
        for count in 0..4 {
            let sum: f64 = Stalls::default()
                .with(count, 5.0, 20.0)
                .odds(30.0)
                .iter()
                .sum();
            assert!((sum - 1.0).abs() < 1e-9, "{count}: {sum}");
        }
    }

    #[test]
    fn a_line_that_never_stalled_is_hardly_expected_to() {
        let left = ten_seconds_after(Stalls::default().with(0, 0.0, 60.0));
        assert!((9.9..10.2).contains(&left.mid), "{left:?}");
        assert!(left.high < 12.0, "{left:?}");
    }

    #[test]
    fn a_line_that_stalls_often_is_expected_to_stall_again() {
        let left = ten_seconds_after(Stalls::default().with(4, 20.0, 20.0));
        assert!(left.mid > 14.0, "{left:?}");
        assert!(left.high > left.mid + 4.0, "{left:?}");
        assert!(left.low < 12.0, "{left:?}");
    }
}
