//! How fast a link is over time, from a seed: the same each time, and different enough to fool a guess that only
//! looks at the last second. Pure: times come in, times go out.

use std::time::Duration;

/// How a link's speed changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It does not.
    Steady,
    /// It rises evenly from 30 % to 170 % of the mean over the expected time, and stays there.
    Ramping,
    /// It is another every 0.7 s, log-normally distributed around the mean.
    Bursty,
    /// It does not change, but for one or two gaps of 4 to 7 s within the expected time.
    Stalling,
}

/// A link's speed as a function of the time since its first byte.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    shape: Shape,
    /// Bytes per second while it moves.
    mean: f64,
    /// Seconds that the link is expected to be busy, gaps not counted.
    expected: f64,
    seed: u64,
    /// Begin and end of each gap in seconds.
    gaps: Vec<(f64, f64)>,
}

/// A burst's length in seconds.
const BURST: f64 = 0.7;
/// Deviation of the logarithm of a burst's speed: two thirds of them are between half and twice the median.
const BURST_DEVIATION: f64 = 0.7;
/// The steps in which a ramp rises.
const RAMP_STEPS: f64 = 100.0;

impl Profile {
    /// Returns the profile of a link that carries `bytes_per_second` on average and is expected to be busy for
    /// `expected`, gaps not counted.
    #[must_use]
    pub fn new(shape: Shape, bytes_per_second: f64, expected: Duration, seed: u64) -> Self {
        let expected = expected.as_secs_f64().max(0.001);
        let gaps = match shape {
            Shape::Steady | Shape::Ramping | Shape::Bursty => Vec::new(),
            Shape::Stalling => gaps(expected, seed),
        };
        Self {
            shape,
            mean: bytes_per_second.max(1.0),
            expected,
            seed,
            gaps,
        }
    }

    /// Returns when the last of `count` bytes has gone whose first is free to go at `begin`.
    #[must_use]
    pub fn end_of(&self, begin: Duration, count: u64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "what is sent at once is far below 2^53 bytes"
        )]
        let mut left = count as f64;
        let mut at = begin.as_secs_f64();
        loop {
            let (speed, until) = self.piece(at);
            let room = speed * (until - at);
            if left <= room {
                return Duration::from_secs_f64(at + left / speed.max(f64::MIN_POSITIVE));
            }
            left -= room;
            // Rounding must not hold the time where it is.
            at = until.max(at + 1e-9);
        }
    }

    /// Returns the speed at this time and until when it stays so.
    fn piece(&self, at: f64) -> (f64, f64) {
        match self.shape {
            Shape::Steady => (self.mean, f64::INFINITY),
            Shape::Ramping => {
                if at >= self.expected {
                    return (1.7 * self.mean, f64::INFINITY);
                }
                let step = (at / self.expected * RAMP_STEPS).floor();
                let middle = (step + 0.5) / RAMP_STEPS;
                let until = (step + 1.0) / RAMP_STEPS * self.expected;
                (self.mean * (0.3 + 1.4 * middle), until)
            }
            Shape::Bursty => {
                let burst = (at / BURST).floor();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small whole number, not below zero"
                )]
                let index = burst as u64;
                let exponent = BURST_DEVIATION * normal(self.seed, index);
                // The mean of a log-normal distribution is above its median.
                let factor = (exponent - BURST_DEVIATION * BURST_DEVIATION / 2.0).exp();
                (self.mean * factor, (burst + 1.0) * BURST)
            }
            Shape::Stalling => {
                let next = self.gaps.iter().find(|(_, end)| at < *end);
                match next {
                    Some((begin, end)) if at >= *begin => (0.0, *end),
                    Some((begin, _)) => (self.mean, *begin),
                    None => (self.mean, f64::INFINITY),
                }
            }
        }
    }
}

/// Returns one or two gaps that begin while there is still something to carry.
fn gaps(expected: f64, seed: u64) -> Vec<(f64, f64)> {
    let between = |index, low: f64, high: f64| low + (high - low) * uniform(seed, index);
    let two = uniform(seed, 0) < 0.5;
    let first = expected * between(1, 0.15, if two { 0.4 } else { 0.75 });
    let first_end = first + between(2, 4.0, 7.0);
    let mut gaps = vec![(first, first_end)];
    if two {
        let second = first_end + expected * between(3, 0.15, 0.4);
        gaps.push((second, second + between(4, 4.0, 7.0)));
    }
    gaps
}

/// Returns a number of a seed's sequence, evenly from 0 to 1: Steele's and Vigna's splitmix64.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut bits = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    unit
}

/// Returns a number of a seed's sequence, normally distributed: Box and Muller's way.
fn normal(seed: u64, index: u64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(seed, 2 * index)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(seed, 2 * index + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: f64 = 1_000_000.0;
    const EXPECTED: Duration = Duration::from_secs(10);

    fn profile(shape: Shape, seed: u64) -> Profile {
        Profile::new(shape, MEAN, EXPECTED, seed)
    }

    /// Carries pieces one after another as the proxy does, and returns the bytes of each second.
    fn carried(profile: &Profile, seconds: usize) -> Vec<f64> {
        let mut bytes = vec![0.0; seconds];
        let mut at = Duration::ZERO;
        loop {
            at = profile.end_of(at, 1_000);
            let Some(second) = bytes.get_mut(usize::try_from(at.as_secs()).unwrap()) else {
                return bytes;
            };
            *second += 1_000.0;
        }
    }

    #[track_caller]
    fn check_near(value: f64, expected: f64, tolerance: f64) {
        assert!(
            (value - expected).abs() <= tolerance * expected,
            "{value} is not about {expected}"
        );
    }

    #[test]
    fn a_steady_link_carries_the_same_in_every_second() {
        for second in carried(&profile(Shape::Steady, 1), 20) {
            check_near(second, MEAN, 0.01);
        }
    }

    #[test]
    fn a_ramping_link_rises_to_170_percent_and_carries_its_mean_over_the_expected_time() {
        let seconds = carried(&profile(Shape::Ramping, 1), 15);
        check_near(seconds[0], 0.37 * MEAN, 0.03);
        assert!(seconds[..10].is_sorted(), "{seconds:?}");
        check_near(seconds[..10].iter().sum(), 10.0 * MEAN, 0.01);
        check_near(seconds[12], 1.7 * MEAN, 0.01);
    }

    #[test]
    fn a_bursty_link_changes_all_the_time_and_keeps_its_mean_in_the_long_run() {
        let profile = profile(Shape::Bursty, 1);
        let speeds: Vec<f64> = (0..20)
            .map(|burst| profile.piece(f64::from(burst) * BURST + 0.1).0)
            .collect();
        assert!(speeds.iter().any(|speed| *speed < 0.6 * MEAN), "{speeds:?}");
        assert!(speeds.iter().any(|speed| *speed > 1.4 * MEAN), "{speeds:?}");
        let seconds = carried(&profile, 3_000);
        check_near(seconds.iter().sum::<f64>() / 3_000.0, MEAN, 0.05);
    }

    #[test]
    fn a_stalling_link_is_silent_in_its_gaps_and_steady_around_them() {
        let mut counts = Vec::new();
        for seed in 0..20 {
            let profile = profile(Shape::Stalling, seed);
            let mut silent = 0.0;
            for (begin, end) in &profile.gaps {
                assert!((4.0..7.0).contains(&(end - begin)), "{profile:?}");
                let begun = Duration::from_secs_f64(begin + 0.001);
                let next = profile.end_of(begun, 1).as_secs_f64();
                check_near(next, *end, 0.001);
                silent += end - begin;
            }
            let whole = profile.end_of(Duration::ZERO, 10_000_000);
            check_near(whole.as_secs_f64(), 10.0 + silent, 0.01);
            counts.push(profile.gaps.len());
        }
        counts.sort_unstable();
        counts.dedup();
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn a_seed_decides_everything() {
        for shape in [Shape::Bursty, Shape::Stalling] {
            let one = carried(&profile(shape, 1), 20);
            assert_eq!(one, carried(&profile(shape, 1), 20));
            assert_ne!(one, carried(&profile(shape, 2), 20), "{shape:?}");
        }
    }
}
