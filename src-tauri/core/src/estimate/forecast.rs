//! What is left, in seconds, and how sure that is.

/// The P90 of a normal distribution, in standard deviations from its middle.
pub(super) const Z_P90: f64 = 1.281_551_565_544_6;

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
    /// Returns the forecast of something whose seconds are known at a pace: 1 is as slow as it gets
    /// nine times in ten, −1 as quick.
    #[must_use]
    pub(super) fn at_paces(seconds: impl Fn(f64) -> f64) -> Self {
        Self {
            low: seconds(-1.0),
            mid: seconds(0.0),
            high: seconds(1.0),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

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
