//! Lines that are drawn from a population, step by step: how fast each is over time. Pure, and the same for the same
//! seed.
//!
//! There are two populations: what Cove's constants are found on, and what it is judged on. They have no line in common,
//! and differ in how lines ramp, how long bursts and gaps last, and how much each varies.

use crate::dice::{Dice, Range};
use crate::trace::Link;

/// Seconds of a step, in which a speed stays the same.
pub(crate) const STEP_S: f64 = 0.25;
/// Steps that a line is drawn for; after that it goes on at its last speed.
const STEPS: usize = 1_600;
/// Bytes per second, at least: what is not a gap moves.
const LEAST_SPEED: f64 = 1e3;

/// How the lines of a population are distributed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Population {
    pub(crate) name: &'static str,
    /// Bytes per second: at the end of a ramp, outside of gaps, and on the mean of bursts.
    pub(crate) speed: Range,
    /// Bytes of an image.
    pub(crate) bytes: Range,
    /// The standard deviation of the logarithm of a step's speed.
    pub(crate) jitter: Range,
    /// The share of its last speed that a ramp begins with.
    pub(crate) ramp_from: Range,
    /// Seconds that a ramp takes.
    pub(crate) ramp_s: Range,
    pub(crate) ramp: Ramp,
    /// How many ramps go down instead, 0 to 1.
    pub(crate) falling: f64,
    /// Steps of a burst, each as likely as the others.
    pub(crate) burst_steps: &'static [usize],
    /// The standard deviation of the logarithm of a burst's speed.
    pub(crate) burst_deviation: Range,
    /// Mean seconds from one gap to the next.
    pub(crate) gap_every_s: Range,
    /// Seconds of a gap.
    pub(crate) gap_s: Range,
}

/// How a ramp goes from its first speed to its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ramp {
    /// Evenly.
    Linear,
    /// Quickly at first: `1 − e^(−3t/T)`, as far as it comes in its time.
    Saturating,
}

impl Population {
    /// The lines on which constants may be found.
    pub(crate) const TUNING: Self = Self {
        name: "tuning",
        speed: Range(2e6, 8e6),
        bytes: Range(30e6, 120e6),
        jitter: Range(0.02, 0.1),
        ramp_from: Range(0.15, 0.6),
        ramp_s: Range(5.0, 30.0),
        ramp: Ramp::Linear,
        falling: 0.25,
        burst_steps: &[2, 3, 4, 6],
        burst_deviation: Range(0.4, 0.8),
        gap_every_s: Range(8.0, 25.0),
        gap_s: Range(4.0, 8.0),
    };

    /// The lines on which Cove is judged, and nothing is tuned.
    pub(crate) const HELD_OUT: Self = Self {
        name: "held out",
        speed: Range(1.5e6, 10e6),
        bytes: Range(25e6, 150e6),
        jitter: Range(0.03, 0.15),
        ramp_from: Range(0.1, 0.5),
        ramp_s: Range(8.0, 40.0),
        ramp: Ramp::Saturating,
        falling: 0.3,
        burst_steps: &[1, 3, 5, 8],
        burst_deviation: Range(0.3, 0.9),
        gap_every_s: Range(6.0, 40.0),
        gap_s: Range(3.5, 12.0),
    };
}

/// What a line is, apart from chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) course: Course,
    /// Bytes per second.
    pub(crate) speed: f64,
    /// The standard deviation of the logarithm of a step's speed.
    pub(crate) jitter: f64,
}

/// How a line's speed changes beside its jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Course {
    Steady,
    Ramping {
        ramp: Ramp,
        /// The share of its last speed that it begins with; above 1 it falls.
        from: f64,
        seconds: f64,
    },
    Bursty {
        steps: usize,
        deviation: f64,
    },
    Stalling {
        every_s: f64,
        gap_s: Range,
    },
}

impl Course {
    /// Draws a course of this kind.
    pub(crate) fn draw(population: &Population, link: Link, dice: &mut Dice) -> Self {
        match link {
            Link::Steady | Link::Free => Self::Steady,
            Link::Ramping => {
                let from = dice.between(population.ramp_from);
                let falls = dice.share() < population.falling;
                Self::Ramping {
                    ramp: population.ramp,
                    from: if falls { 1.0 / from } else { from },
                    seconds: dice.log_between(population.ramp_s),
                }
            }
            Link::Bursty => Self::Bursty {
                steps: dice.one_of(population.burst_steps).unwrap_or(1),
                deviation: dice.between(population.burst_deviation),
            },
            Link::Stalling => Self::Stalling {
                every_s: dice.log_between(population.gap_every_s),
                gap_s: population.gap_s,
            },
        }
    }

    /// Returns the logarithm of the speed in the middle of a step, as a multiple of the line's own.
    pub(crate) fn trend(self, step: usize) -> f64 {
        let Self::Ramping {
            ramp,
            from,
            seconds,
        } = self
        else {
            return 0.0;
        };
        let time = ((as_f64(step) + 0.5) * STEP_S / seconds).min(1.0);
        let share = match ramp {
            Ramp::Linear => time,
            Ramp::Saturating => (1.0 - (-3.0 * time).exp()) / (1.0 - (-3.0_f64).exp()),
        };
        (from + (1.0 - from) * share).ln()
    }
}

impl Line {
    /// Draws a line of this kind.
    pub(crate) fn draw(population: &Population, link: Link, dice: &mut Dice) -> Self {
        Self {
            course: Course::draw(population, link, dice),
            speed: dice.log_between(population.speed),
            jitter: dice.between(population.jitter),
        }
    }

    /// Draws the speed of each step, 0 in gaps.
    pub(crate) fn speeds(&self, dice: &mut Dice) -> Vec<f64> {
        let mut future = Future::of(*self, 0, None, None);
        (0..STEPS).map(|_| future.next_speed(dice)).collect()
    }
}

/// A line that goes on from some step.
#[derive(Debug, Clone)]
pub(crate) struct Future {
    line: Line,
    step: usize,
    /// The logarithm of the current burst's speed, as a multiple of the line's own.
    burst: Option<f64>,
    /// Steps that are left of a gap.
    gap: usize,
}

impl Future {
    /// Returns what follows after so many steps. Of a burst that is under way its logarithm is given, and of a gap the
    /// steps so far.
    pub(crate) fn of(line: Line, step: usize, burst: Option<f64>, gap: Option<usize>) -> Self {
        Self {
            line,
            step,
            burst,
            gap: gap.unwrap_or(0),
        }
    }

    /// Draws the next step's speed in bytes per second.
    pub(crate) fn next_speed(&mut self, dice: &mut Dice) -> f64 {
        let step = self.step;
        self.step += 1;
        let mut trend = self.line.course.trend(step);
        match self.line.course {
            Course::Steady | Course::Ramping { .. } => {}
            Course::Bursty { steps, deviation } => {
                let drawn = match self.burst.filter(|_| !step.is_multiple_of(steps)) {
                    Some(burst) => burst,
                    // The mean of a log-normal distribution is above its median.
                    None => deviation * dice.normal() - deviation * deviation / 2.0,
                };
                self.burst = Some(drawn);
                trend += drawn;
            }
            Course::Stalling { every_s, gap_s } => {
                if self.gap > 0 {
                    self.gap -= 1;
                    return 0.0;
                }
                if dice.share() < STEP_S / every_s {
                    self.gap = steps_of(dice.between(gap_s)).saturating_sub(1);
                    return 0.0;
                }
            }
        }
        let speed = self.line.speed * (trend + self.line.jitter * dice.normal()).exp();
        speed.max(LEAST_SPEED)
    }
}

/// Returns the steps of a stretch, to the nearest.
fn steps_of(seconds: f64) -> usize {
    index_of((seconds / STEP_S).round())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, and the cast saturates"
)]
pub(crate) fn index_of(place: f64) -> usize {
    place as usize
}

#[expect(clippy::cast_precision_loss, reason = "a small count")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}
