//! How wide a forecast's bounds must be to hold eight times in ten: measured, not assumed.
//!
//! A forecast is right by its model; a *conformal score* says how far from its middle the truth came, as a multiple of the
//! distance to the bound on that side. The factor that makes a bound hold as often as it should is a quantile of the scores of
//! past forecasts (split conformal prediction: Vovk et al., Algorithmic Learning in a Random World, 2005), here
//! by what kind of pull it is (Mondrian: the same, section 4.5). The table is made by `cargo xtask bench eta
//! --calibrate` from lines that are drawn, and this machine's own recent pulls, from any registry, move it on: after
//! each of them a bound gives way a little if it held, and much more if it did not (adaptive conformal inference:
//! Gibbs and Candès, Advances in Neural Information Processing Systems 34, 2021).

use serde::{Deserialize, Serialize};

use super::forecast::Forecast;

/// How often the truth may be below and above the bounds. Bad news comes seldom and is large, and is worth
/// a wider bound than good news.
pub const TAILS: (f64, f64) = (0.1, 0.07);

/// Factors of the lower and the upper bound by [`Cell::place`].
const FACTORS: [(f64, f64); 18] = [
    (0.2, 4.0),
    (0.48, 2.63),
    (0.55, 1.23),
    (0.68, 1.09),
    (0.54, 0.57),
    (0.64, 0.2),
    (0.84, 1.14),
    (0.93, 1.65),
    (0.62, 3.4),
    (0.34, 2.08),
    (0.21, 1.15),
    (0.26, 0.74),
    (0.44, 0.85),
    (0.42, 0.85),
    (0.34, 0.67),
    (0.8, 1.83),
    (0.76, 1.99),
    (0.39, 4.0),
];

/// How quickly this machine's own pulls move the bounds, as a logarithm.
const ADAPTATION: f64 = 0.1;
/// The least and the most that they move them.
const ADAPTED: (f64, f64) = (0.6, 2.5);
/// A bound that is as good as at the middle is taken to be this far from it, in seconds.
const LEAST_DISTANCE_S: f64 = 0.1;

/// How restless a line is, by what was seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unrest {
    /// It keeps its level.
    Calm,
    /// It changes or comes in bursts.
    Restless,
    /// It has stood still.
    Stalling,
}

/// What the width of a pull's bounds depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Whether the line was used before.
    pub is_known: bool,
    /// What was seen of it.
    pub unrest: Unrest,
    /// Thirds of the pull that are over, 0 to 2.
    pub third: u8,
}

impl Cell {
    /// Returns the third of a pull of which this share is done.
    pub(super) fn third_of(fraction: f64) -> u8 {
        match fraction {
            fraction if fraction < 1.0 / 3.0 => 0,
            fraction if fraction < 2.0 / 3.0 => 1,
            _ => 2,
        }
    }

    /// Returns the cell's place in a table of all.
    #[must_use]
    pub fn place(self) -> usize {
        let unrest = match self.unrest {
            Unrest::Calm => 0,
            Unrest::Restless => 1,
            Unrest::Stalling => 2,
        };
        9 * usize::from(self.is_known) + 3 * unrest + usize::from(self.third.min(2))
    }

    /// Returns the factors of the lower and the upper bound.
    #[must_use]
    pub fn factors(self) -> (f64, f64) {
        FACTORS.get(self.place()).copied().unwrap_or((1.0, 1.0))
    }
}

/// How far from the middle of a forecast the truth came: below 0 as a multiple of the distance to the lower
/// bound, above 0 of that to the upper one.
#[must_use]
pub fn score(forecast: Forecast, truth: f64) -> f64 {
    let off = truth - forecast.mid;
    let bound = if off < 0.0 {
        forecast.mid - forecast.low
    } else {
        forecast.high - forecast.mid
    };
    off / bound.max(LEAST_DISTANCE_S)
}

impl Forecast {
    /// Returns the forecast with its bounds moved away from the middle by these factors.
    #[must_use]
    pub(super) fn widened(self, (lower, upper): (f64, f64)) -> Self {
        Self {
            low: (self.mid - lower * (self.mid - self.low)).max(0.0),
            high: self.mid + upper * (self.high - self.mid),
            ..self
        }
    }
}

/// By how much this machine's own pulls move the bounds: factors of the lower and the upper one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Adapted {
    lower: f64,
    upper: f64,
}

impl Default for Adapted {
    fn default() -> Self {
        Self {
            lower: 1.0,
            upper: 1.0,
        }
    }
}

impl Adapted {
    /// Learns from scores of forecasts that were not adapted, oldest first.
    pub(super) fn by(scores: impl IntoIterator<Item = f64>) -> Self {
        let mut adapted = Self::default();
        let step = |factor: &mut f64, is_missed: bool, tail: f64| {
            let missed = f64::from(u8::from(is_missed));
            let moved = *factor * (ADAPTATION * (missed - tail)).exp();
            *factor = moved.clamp(ADAPTED.0, ADAPTED.1);
        };
        for score in scores {
            let (is_below, is_above) = (score < -adapted.lower, score > adapted.upper);
            step(&mut adapted.lower, is_below, TAILS.0);
            step(&mut adapted.upper, is_above, TAILS.1);
        }
        adapted
    }

    /// Returns the factors of the lower and the upper bound.
    pub(super) fn factors(self) -> (f64, f64) {
        (self.lower, self.upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_distance_in_bounds() {
        let forecast = Forecast {
            low: 8.0,
            mid: 10.0,
            high: 14.0,
        };
        for (truth, expected) in [(10.0, 0.0), (8.0, -1.0), (14.0, 1.0), (18.0, 2.0)] {
            assert!((score(forecast, truth) - expected).abs() < 1e-9, "{truth}");
        }
    }

    #[test]
    fn bounds_that_hold_too_often_come_closer_and_those_that_do_not_give_way() {
        let upper = |scores: &[f64]| Adapted::by(scores.iter().copied()).upper;
        assert!(upper(&[0.1; 60]) < 0.9);
        assert!(upper(&[2.0; 10]) > 1.5);
        assert!(upper(&[100.0; 1_000]) <= ADAPTED.1);
    }

    #[test]
    fn adapted_bounds_hold_as_often_as_they_should() {
        // Scores that are spread evenly from −2 to 2: half of them are beyond bounds that nobody adapts.
        let scores: Vec<f64> = (0..4_000_i32)
            .map(|place| f64::from((place * 2_654) % 4_000) / 1_000.0 - 2.0)
            .collect();
        let mut held = 0.0;
        for (place, score) in scores.iter().enumerate().skip(1_000) {
            let adapted = Adapted::by(scores[place - 200..place].iter().copied());
            let is_within = (-adapted.lower..=adapted.upper).contains(score);
            held += f64::from(u8::from(is_within)) / 3_000.0;
        }
        assert!((0.75..0.85).contains(&held), "{held}");
    }
}
