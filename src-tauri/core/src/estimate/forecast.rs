//! What is left, in seconds, and how sure that is.

/// The P90 of a normal distribution, in standard deviations from its middle.
pub(super) const Z_P90: f64 = 1.281_551_565_544_6;

/// Returns the share of a normal distribution that is below `z` standard deviations above its middle; right to 1e-7
/// (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, formula 26.2.17).
pub(super) fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let sum = series
        .iter()
        .rev()
        .fold(0.0, |sum, factor| (sum + factor) * t);
    let above = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum;
    if z < 0.0 { above } else { 1.0 - above }
}

/// Time left: a middle, and the bounds that it keeps eight times in ten.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Forecast {
    /// P10 in seconds.
    pub low: f64,
    /// P50 in seconds.
    pub mid: f64,
    /// P90 in seconds.
    pub high: f64,
}

impl Forecast {
    /// Returns the forecast of two things one after the other that have nothing to do with each
    /// other: middles add up, distances from the middle add up as independent errors do.
    #[must_use]
    pub(super) fn then(self, next: Self) -> Self {
        let mid = self.mid + next.mid;
        Self {
            low: mid - (self.mid - self.low).hypot(next.mid - next.low),
            mid,
            high: mid + (self.high - self.mid).hypot(next.high - next.mid),
        }
    }

    /// Returns the forecast some seconds later, when nothing has been heard meanwhile.
    #[must_use]
    pub(super) fn after(self, seconds: f64) -> Self {
        let less = |left: f64| (left - seconds).max(0.0);
        Self {
            low: less(self.low),
            mid: less(self.mid),
            high: less(self.high),
        }
    }
}

/// A positive quantity that varies log-normally: the mean and the variance of its natural logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LogNormal {
    pub mean: f64,
    pub variance: f64,
}

impl LogNormal {
    /// Returns the quantile that is `z` standard deviations above the median.
    #[must_use]
    pub(super) fn quantile(self, z: f64) -> f64 {
        (self.mean + z * self.variance.sqrt()).exp()
    }

    /// Returns what two independent judgements of the same quantity say together, by inverse-variance
    /// weighting: each counts as much as it is sure.
    #[must_use]
    pub(super) fn combined_with(self, other: Self) -> Self {
        let (one, two) = (1.0 / self.variance, 1.0 / other.variance);
        Self {
            mean: (self.mean * one + other.mean * two) / (one + two),
            variance: 1.0 / (one + two),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_judgements_the_surer_one_counts_more_and_both_are_surer_than_one() {
        let sure = LogNormal {
            mean: 1.0,
            variance: 0.1,
        };
        let vague = LogNormal {
            mean: 2.0,
            variance: 0.4,
        };
        let both = sure.combined_with(vague);
        assert!((both.mean - 1.2).abs() < 1e-9, "{both:?}");
        assert!((both.variance - 0.08).abs() < 1e-9, "{both:?}");
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (z, share) in [
            (0.0, 0.5),
            (1.0, 0.841_345),
            (-1.959_964, 0.025),
            (Z_P90, 0.9),
        ] {
            assert!((normal_cdf(z) - share).abs() < 1e-6, "{z}");
        }
    }

    #[test]
    fn independent_errors_add_up_to_less_than_their_sum() {
        let one = Forecast {
            low: 7.0,
            mid: 10.0,
            high: 14.0,
        };
        let both = one.then(Forecast {
            low: 1.0,
            mid: 5.0,
            high: 8.0,
        });
        let expected = Forecast {
            low: 10.0,
            mid: 15.0,
            high: 20.0,
        };
        assert_eq!(both, expected);
    }
}
