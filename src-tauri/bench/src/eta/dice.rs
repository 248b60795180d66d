//! Chance from a seed: numbers of the distributions that lines and images are drawn from.

use cove_testbed::Random;

use crate::images::hash;

/// The least and the most of a quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range(pub(crate) f64, pub(crate) f64);

/// A row of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Random);

impl Dice {
    /// Returns the row of a name: rows of different names have nothing in common.
    pub(crate) fn of(name: &str) -> Self {
        let mut random = Random::after(hash(name) | 1);
        // The first numbers after similar seeds are similar.
        for _ in 0..8 {
            random.number();
        }
        Self(random)
    }

    /// Returns a number from 0 to 1 (exclusive), evenly.
    pub(crate) fn share(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let unit = (self.0.number() >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    /// Returns a number of a range, evenly.
    pub(crate) fn between(&mut self, Range(low, high): Range) -> f64 {
        low + (high - low) * self.share()
    }

    /// Returns a number of a range whose logarithm is evenly distributed.
    pub(crate) fn log_between(&mut self, Range(low, high): Range) -> f64 {
        low * (high / low).powf(self.share())
    }

    /// Returns a normally distributed number, by Box and Muller (Annals of Mathematical Statistics 29, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    /// Returns one of some, each as likely as the others.
    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.0.number() % count).ok()?;
        of.get(index).copied()
    }
}
