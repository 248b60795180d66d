//! What a line's past says of its speed to come.
//!
//! Nobody says what kind of line it is, so that some courses are weighed against each other: it keeps its level,
//! it speeds up or slows down for a while, or it goes as it usually does. Each is a straightforward model of the speeds so
//! far, `ln v = level + course + noise`, whose noise has a memory (first-order autoregression). Level and
//! variance are integrated out in closed form (normal–inverse-gamma: Gelman et al., Bayesian Data Analysis, 3rd ed., 2013,
//! section 14.2), and what comes is the average of what the courses say, each weighed by how well it
//! explains the past (Bayesian model averaging: Hoeting et al., Statistical Science 14, 1999).

use serde::{Deserialize, Serialize};

use super::as_f64;
use super::forecast::{LogNormal, normal_cdf};
use super::history::{LineUsual, Shape};

/// The shares of its last speed that a line may begin with, and the seconds that it may need to come to it.
const RAMP_FROM: [f64; 12] = [
    0.1, 0.15, 0.22, 0.32, 0.45, 0.6, 0.75, 1.35, 1.8, 2.5, 4.0, 7.0,
];
const RAMP_S: [f64; 6] = [4.0, 7.0, 12.0, 20.0, 35.0, 60.0];
/// How likely courses are before anything was seen.
const LEVEL_PRIOR: f64 = 0.6;
const RISE_PRIOR: f64 = 0.3;
const FALL_PRIOR: f64 = 0.1;
/// How much of a deviation is left after this many seconds.
const MEMORY_S: f64 = 0.5;
const MEMORIES: [f64; 3] = [0.0, 0.5, 0.8];
/// The noise that is expected before it was seen, as a variance of the logarithm of a speed, and how many
/// observations that counts as; one more for each earlier pull, to this many.
const NOISE: f64 = 0.01;
const NOISE_COUNTS: f64 = 1.0;
const MOST_NOISE_COUNTS: f64 = 5.0;
/// How many lines come in bursts, and their noise, likewise.
const BURSTY: f64 = 0.4;
const BURSTS: (f64, f64) = (0.3, 3.0);
/// How much of what an earlier pull has shown is taken for its neighbours among courses and memories.
const BLUR: f64 = 0.4;
/// Neighbours of a course are within these distances of its begin and its duration, as logarithms; there are about so
/// many.
const NEAR: (f64, f64) = (0.5, 0.75);
const NEIGHBOURS: f64 = 8.0;
/// A line with more noise than this is a restless one.
const RESTLESS_NOISE: f64 = 0.03;
/// The first and the last factor by which a course is varied to find a better one.
const FIRST_STEP: f64 = 1.25;
const LAST_STEP: f64 = 1.01;
/// A block counts with at least this share of the mean: the logarithm of nothing has no bounds.
const LEAST_SHARE: f64 = 0.05;
/// No line is known better than this, as a standard deviation of the logarithm of its speed.
const CERTAIN: f64 = 0.03;
/// Courses that are this much less likely than the likeliest do not count.
const LEAST_WEIGHT: f64 = 4e-3;
/// How much the variance of a quarter's time adds to that of the speed, at the middle of a pull.
const SHAPE_WEIGHT: f64 = 4.0;
/// At the ends of a pull its shape says little; `time × (1 − time)` counts as at least this.
const LEAST_SHAPE_TIME: f64 = 0.05;
/// Shares of a pull's time and bytes are kept this far from their ends, where speeds have no bounds.
const LEAST_SHARE_OF_TIME: f64 = 0.01;
const LEAST_SHARE_OF_BYTES: f64 = 0.001;

/// The speeds of a line so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blocks {
    /// Seconds of each block.
    pub width: f64,
    /// Bytes per second of each block, oldest first.
    pub speeds: Vec<f64>,
    /// Seconds until now.
    pub span: f64,
    /// Bytes per second on the whole.
    pub mean: f64,
}

/// How a line went on a pull that is over: the course that explains it best, and its noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LineFit {
    /// The logarithm of its last speed in bytes per second, its noise left out.
    level: f64,
    /// The share of its last speed that it began with; 1 where it kept its level.
    from: f64,
    /// Seconds that it needed to come to it.
    seconds: f64,
    /// The variance of the logarithm of its speed.
    noise: f64,
    /// How much of a deviation was left after half a second, 0 to 1.
    memory: f64,
}

/// A quantity of which several judgements are possible, each with a weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mixture {
    parts: Vec<(f64, LogNormal)>,
    /// Whether the line was seen to change or to come in bursts.
    pub is_restless: bool,
}

impl Mixture {
    /// Returns the quantile that a normal distribution has `z` standard deviations above its median.
    #[must_use]
    pub(super) fn quantile(&self, z: f64) -> f64 {
        if let [(_, only)] = self.parts.as_slice() {
            return only.quantile(z);
        }
        let wanted = normal_cdf(z) * self.parts.iter().map(|(weight, _)| weight).sum::<f64>();
        let edge = |side: f64| {
            let edges = self.parts.iter();
            edges.map(move |(_, part)| part.mean + side * 4.0 * part.variance.sqrt())
        };
        let mut low = edge(-1.0).fold(f64::INFINITY, f64::min);
        let mut high = edge(1.0).fold(f64::NEG_INFINITY, f64::max);
        for _ in 0..20 {
            let middle = f64::midpoint(low, high);
            let below: f64 = self
                .parts
                .iter()
                .map(|(weight, part)| {
                    weight * normal_cdf((middle - part.mean) / part.variance.sqrt())
                })
                .sum();
            if below < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high).exp()
    }
}

impl From<LogNormal> for Mixture {
    fn from(only: LogNormal) -> Self {
        Self {
            parts: vec![(1.0, only)],
            is_restless: false,
        }
    }
}

/// A way in which a speed may go on.
#[derive(Debug, Clone, Copy)]
enum Course {
    Level,
    /// From a share of its last speed to that, evenly, within some seconds.
    Ramp {
        from: f64,
        seconds: f64,
    },
    /// As on earlier pulls: the share of the time that is over, and the usual shape.
    Usual {
        time: f64,
        shape: Shape,
    },
}

impl Course {
    /// Returns the logarithm of the speed at this time, as a multiple of the level.
    fn at(self, seconds: f64, span: f64) -> f64 {
        match self {
            Self::Level => 0.0,
            Self::Ramp {
                from,
                seconds: whole,
            } => (from + (1.0 - from) * (seconds / whole).min(1.0)).ln(),
            Self::Usual { time, shape } => shape.speed_at(time * seconds / span).ln(),
        }
    }

    /// Returns what logarithms of speeds are beside the course.
    fn residuals(self, logs: &[f64], behind: &Blocks) -> Vec<f64> {
        let blocks = logs.iter().enumerate();
        blocks
            .map(|(block, log)| {
                let middle = (as_f64(block as u64) + 0.5) * behind.width;
                log - self.at(middle, behind.span)
            })
            .collect()
    }

    /// Returns the logarithm of the mean speed over the next so many bytes, as a multiple of the level,
    /// which is given.
    fn ahead(self, span: f64, done: f64, bytes: f64, level: f64) -> f64 {
        match self {
            Self::Level => 0.0,
            Self::Ramp {
                from,
                seconds: whole,
            } => {
                if span >= whole {
                    return 0.0;
                }
                let now = level * (from + (1.0 - from) * span / whole);
                let (rest, growth) = (whole - span, level * (1.0 - from) / whole);
                let in_ramp = f64::midpoint(now, level) * rest;
                let takes = if bytes > in_ramp {
                    rest + (bytes - in_ramp) / level
                } else {
                    // The root of `now × t + growth × t² / 2 = bytes`, in the form that has no difference of likes.
                    2.0 * bytes / (now + (now * now + 2.0 * growth * bytes).max(0.0).sqrt())
                };
                (bytes / takes / level).ln()
            }
            Self::Usual { time, .. } => {
                ((1.0 - done).max(LEAST_SHARE_OF_BYTES) / (1.0 - time)).ln()
            }
        }
    }
}

/// Judges the mean speed over what is left of a pull, in bytes per second: `left` bytes, of which the
/// share `done` is there already. `None` when there is nothing to judge by.
pub(super) fn speed_ahead(
    behind: Option<&Blocks>,
    left: f64,
    done: f64,
    usual: Option<&LineUsual>,
) -> Option<Mixture> {
    let Some(behind) = behind.filter(|behind| !behind.speeds.is_empty()) else {
        return usual.map(|usual| usual.speed.into());
    };
    let judged = fits(behind, done, usual).into_iter().map(|fitted| {
        let (likelihood, part) = judge(&fitted, behind, left, done, usual);
        let keeps_level = match fitted.course {
            Course::Level | Course::Usual { .. } => true,
            Course::Ramp { .. } => false,
        };
        let is_restless = !keeps_level || fitted.fit.noise > RESTLESS_NOISE;
        (likelihood, part, is_restless)
    });
    let judged: Vec<_> = judged.collect();
    let best = judged.iter().map(|(likelihood, ..)| *likelihood);
    let best = best.fold(f64::NEG_INFINITY, f64::max);
    let (mut parts, mut restless, mut all) = (Vec::new(), 0.0, 0.0);
    for (likelihood, part, is_restless) in judged {
        let weight = (likelihood - best).exp();
        if weight > LEAST_WEIGHT {
            parts.push((weight, part));
            all += weight;
            restless += if is_restless { weight } else { 0.0 };
        }
    }
    Some(Mixture {
        parts,
        is_restless: restless > all / 2.0,
    })
}

/// Returns how a line went, of which this is all.
pub(super) fn fit(behind: &Blocks) -> Option<LineFit> {
    let fits = fits(behind, 1.0, None);
    let best = fits
        .into_iter()
        .max_by(|a, b| a.likelihood.total_cmp(&b.likelihood))?;
    let (mut from, mut seconds) = match best.course {
        Course::Ramp { from, seconds } => (from, seconds),
        Course::Level | Course::Usual { .. } => (1.0, 0.0),
    };
    let mut level = best.fit.level.mean;
    if seconds > 0.0 {
        // Between the courses that are tried at first there are better ones: steps that are halved.
        let logs = logs_of(behind);
        let memory = best.memory.powf(behind.width / MEMORY_S);
        let fit = |from: f64, seconds: f64| {
            let residuals = Course::Ramp { from, seconds }.residuals(&logs, behind);
            Fit::of(&residuals, memory, expected_noise(&[]))
        };
        let mut reached = fit(from, seconds).likelihood;
        let mut step = FIRST_STEP;
        while step > LAST_STEP {
            let around = [
                (step, 1.0),
                (1.0 / step, 1.0),
                (1.0, step),
                (1.0, 1.0 / step),
            ];
            let tried = around.map(|(more, longer)| (from * more, seconds * longer));
            let better = tried
                .map(|(from, seconds)| (fit(from, seconds).likelihood, from, seconds))
                .into_iter()
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likelihood, ..)| *likelihood > reached);
            match better {
                Some(better) => (reached, from, seconds) = better,
                None => step = step.sqrt(),
            }
        }
        level = fit(from, seconds).level.mean;
    }
    Some(LineFit {
        level,
        from,
        seconds,
        noise: best.fit.noise,
        memory: best.memory,
    })
}

/// A course with a memory, and what speeds are beside it.
struct Fitted {
    course: Course,
    /// Of half a second.
    memory: f64,
    fit: Fit,
    /// The logarithm of its probability.
    likelihood: f64,
}

fn fits(behind: &Blocks, done: f64, usual: Option<&LineUsual>) -> Vec<Fitted> {
    let logs = logs_of(behind);
    let earlier = usual.map_or(&[][..], |usual| &usual.fits);
    let noise = expected_noise(earlier);
    let memories = memories(earlier);
    let mut fits = Vec::new();
    for (prior, course) in courses(done, usual) {
        let residuals = course.residuals(&logs, behind);
        // A line that goes its way has little noise; one that keeps to its level may come in bursts.
        let bursts = match course {
            Course::Level | Course::Usual { .. } => Some((BURSTY, BURSTS)),
            Course::Ramp { .. } => None,
        };
        let calm = (1.0 - bursts.map_or(0.0, |(share, _)| share), noise);
        for (share, noise) in [Some(calm), bursts].into_iter().flatten() {
            for (likely, memory) in memories {
                // Over longer blocks less of it is left.
                let fit = Fit::of(&residuals, memory.powf(behind.width / MEMORY_S), noise);
                fits.push(Fitted {
                    course,
                    memory,
                    fit,
                    likelihood: fit.likelihood + (prior * share * likely).ln(),
                });
            }
        }
    }
    fits
}

/// Returns the logarithms of the speeds so far.
fn logs_of(behind: &Blocks) -> Vec<f64> {
    let speeds = behind.speeds.iter();
    speeds
        .map(|speed| speed.max(LEAST_SHARE * behind.mean).ln())
        .collect()
}

/// Returns the noise that is to be expected after earlier pulls, and how many observations that counts as.
fn expected_noise(earlier: &[LineFit]) -> (f64, f64) {
    let (mut sum, mut count) = (NOISE.ln(), NOISE_COUNTS);
    for fit in earlier {
        sum += fit.noise.max(1e-6).ln();
        count += 1.0;
    }
    ((sum / count).exp(), count.min(MOST_NOISE_COUNTS))
}

/// Returns the memories that are possible, each with its probability.
fn memories(earlier: &[LineFit]) -> [(f64, f64); 3] {
    MEMORIES.map(|memory| {
        let first = 1.0 / as_f64(MEMORIES.len() as u64);
        let same = earlier.iter().map(|fit| {
            if (fit.memory - memory).abs() < 0.01 {
                1.0 - BLUR
            } else {
                BLUR * first
            }
        });
        (first + same.sum::<f64>(), memory)
    })
}

/// Returns the courses that are possible, each with its probability before anything was seen.
fn courses(done: f64, usual: Option<&LineUsual>) -> Vec<(f64, Course)> {
    let (rises, falls) = RAMP_FROM.iter().fold((0.0, 0.0), |(rises, falls), from| {
        if *from < 1.0 {
            (rises + 1.0, falls)
        } else {
            (rises, falls + 1.0)
        }
    });
    let durations = as_f64(RAMP_S.len() as u64);
    let earlier = usual.map_or(&[][..], |usual| &usual.fits);
    // Each pull that was seen counts as much as all that is assumed before any was.
    let all = 1.0 + as_f64(earlier.len() as u64);
    let seen = |is_level: bool, near: &dyn Fn(&LineFit) -> f64| -> f64 {
        let alike = earlier
            .iter()
            .filter(|fit| (fit.seconds <= 0.0) == is_level);
        alike.map(near).sum()
    };
    let level = (LEVEL_PRIOR + seen(true, &|_| 1.0 - BLUR)) / all;
    let mut courses = vec![(level, Course::Level)];
    for from in RAMP_FROM {
        let prior = if from < 1.0 {
            RISE_PRIOR / rises
        } else {
            FALL_PRIOR / falls
        };
        for seconds in RAMP_S {
            let near = |fit: &LineFit| {
                let from = (fit.from / from).ln().abs() / NEAR.0;
                let seconds = (fit.seconds / seconds).ln().abs() / NEAR.1;
                if from.max(seconds) < 1.0 {
                    BLUR / NEIGHBOURS
                } else {
                    0.0
                }
            };
            let prior = (prior / durations + seen(false, &near)) / all;
            courses.push((prior, Course::Ramp { from, seconds }));
        }
    }
    for fit in earlier.iter().filter(|fit| fit.seconds > 0.0) {
        let course = Course::Ramp {
            from: fit.from,
            seconds: fit.seconds,
        };
        courses.push(((1.0 - BLUR) / all, course));
    }
    if let Some(usual) = usual {
        let shape = usual.shape;
        let time = shape
            .time_of(done)
            .clamp(LEAST_SHARE_OF_TIME, 1.0 - LEAST_SHARE_OF_TIME);
        courses.push((
            BLUR * usual.pulls / (1.0 + usual.pulls),
            Course::Usual { time, shape },
        ));
    }
    courses
}

/// Returns the logarithm of a course's probability, and the speed ahead if it is the right one.
fn judge(
    fitted: &Fitted,
    behind: &Blocks,
    left: f64,
    done: f64,
    usual: Option<&LineUsual>,
) -> (f64, LogNormal) {
    let Fitted { course, fit, .. } = *fitted;
    let mut likelihood = fitted.likelihood;
    let mut level = fit.level;
    if let Some(usual) = usual {
        // How far today's level is from the usual one counts too.
        let usual = usual_level(usual, course);
        let variance = usual.variance + level.variance;
        let distance = level.mean - usual.mean;
        likelihood -= 0.5 * variance.ln() + 0.5 * distance * distance / variance;
        level = level.combined_with(usual);
    }
    let ahead = course.ahead(behind.span, done, left, level.mean.exp());
    let horizon = left / (level.mean + ahead).exp();
    // The mean over what is left has noise of its own: that of so many independent blocks.
    let independent = (horizon / behind.width * (1.0 - fit.memory) / (1.0 + fit.memory)).max(1.0);
    let noise = fit.noise.min(2.0);
    let unlike = match (course, usual) {
        (Course::Usual { time, .. }, Some(usual)) => {
            SHAPE_WEIGHT * usual.shape_variance / (time * (1.0 - time)).max(LEAST_SHAPE_TIME)
        }
        _ => 0.0,
    };
    let part = LogNormal {
        // The mean of a log-normal speed is above its median.
        mean: level.mean + ahead + noise / 2.0 * (1.0 - 1.0 / independent),
        variance: level.variance
            + (noise.exp_m1() / independent).ln_1p()
            + unlike
            + CERTAIN * CERTAIN,
    };
    (likelihood, part)
}

/// Returns the level that a line usually has, if it takes this course.
fn usual_level(usual: &LineUsual, course: Course) -> LogNormal {
    let levels = || usual.fits.iter().map(|fit| fit.level);
    match course {
        // Its level is its last speed, which may be far from its mean.
        Course::Level | Course::Ramp { .. } if !usual.fits.is_empty() => LogNormal {
            mean: levels().sum::<f64>() / as_f64(usual.fits.len() as u64),
            ..usual.speed
        },
        Course::Level | Course::Ramp { .. } | Course::Usual { .. } => usual.speed,
    }
}

/// What speeds are, beside a course: a level and noise around it.
#[derive(Debug, Clone, Copy)]
struct Fit {
    /// The logarithm of the probability of the speeds, but for what all fits have in common.
    likelihood: f64,
    level: LogNormal,
    /// The variance of the noise.
    noise: f64,
    /// How much of a deviation is left in the next block.
    memory: f64,
}

impl Fit {
    /// Fits a level to residuals whose noise has this memory.
    fn of(residuals: &[f64], memory: f64, (noise, counts): (f64, f64)) -> Self {
        // What is new in each block is independent: `r₁√(1 − ρ²)`, then `r − ρ × (the one before)`.
        let fresh = 1.0 - memory * memory;
        let mut before = None;
        let (mut weight, mut sum, mut squares, mut count) = (0.0, 0.0, 0.0, 0.0);
        for residual in residuals {
            let (value, of_level) = match before {
                None => (fresh.sqrt() * residual, fresh.sqrt()),
                Some(before) => (residual - memory * before, 1.0 - memory),
            };
            weight += of_level * of_level;
            sum += of_level * value;
            squares += value * value;
            count += 1.0;
            before = Some(*residual);
        }
        let mean = sum / weight;
        let squares = (squares - sum * mean).max(0.0);
        let shape = (counts + count - 1.0) / 2.0;
        let expected = counts / 2.0 * noise * fresh;
        let scale = expected + squares / 2.0;
        let likelihood = fresh.ln() / 2.0 - weight.ln() / 2.0 + counts / 2.0 * expected.ln()
            - shape * scale.ln();
        let noise = scale / shape;
        Self {
            likelihood,
            level: LogNormal {
                mean,
                variance: noise / weight,
            },
            noise: noise / fresh,
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: f64 = 20e6;

    /// Returns P10, P50 and P90 of the speed ahead in MB per second, after half seconds at these.
    fn ahead(speeds: &[f64]) -> [f64; 3] {
        let past = past(speeds);
        let judged = speed_ahead(Some(&past), LEFT, 0.3, None).unwrap();
        [-1.28, 0.0, 1.28].map(|z| judged.quantile(z) / 1e6)
    }

    fn past(speeds: &[f64]) -> Blocks {
        let count = as_f64(speeds.len() as u64);
        Blocks {
            width: 0.5,
            speeds: speeds.iter().map(|speed| speed * 1e6).collect(),
            span: 0.5 * count,
            mean: speeds.iter().sum::<f64>() / count * 1e6,
        }
    }

    #[test]
    fn a_steady_line_goes_on_as_it_is_and_that_is_sure() {
        let [low, middle, high] = ahead(&[2.0; 16]);
        assert!((1.9..2.1).contains(&middle), "{middle}");
        assert!(high / low < 1.2, "{low} to {high}");
    }

    #[test]
    fn a_line_that_speeds_up_is_expected_to_be_faster_than_it_ever_was() {
        let rising: Vec<f64> = (0..16).map(|block| 1.0 + 0.1 * f64::from(block)).collect();
        let [_, middle, high] = ahead(&rising);
        assert!(middle > 2.5, "{middle}");
        assert!(high > middle, "{middle} {high}");
    }

    #[test]
    fn bursts_are_no_trend_and_make_a_line_less_sure() {
        let bursts = [3.0, 3.0, 1.0, 1.0, 1.5, 1.5, 2.5, 2.5, 1.0, 1.0, 3.0, 3.0];
        let [low, middle, high] = ahead(&bursts);
        assert!((1.6..2.4).contains(&middle), "{middle}");
        assert!(high / low > 1.3, "{low} to {high}");
        let judged = speed_ahead(Some(&past(&bursts)), LEFT, 0.3, None).unwrap();
        assert!(judged.is_restless);
    }

    #[test]
    fn a_ramp_that_is_over_is_remembered_as_one() {
        let speeds: Vec<f64> = (0..60)
            .map(|block| (0.45 + 0.55 * (f64::from(block) + 0.5) / 24.0).min(1.0))
            .collect();
        let fit = fit(&past(&speeds)).unwrap();
        assert!((0.3..0.6).contains(&fit.from), "{fit:?}");
        assert!((8.0..20.0).contains(&fit.seconds), "{fit:?}");
        assert_eq!(super::fit(&past(&[1.0; 60])).map(|fit| fit.from), Some(1.0));
    }

    #[test]
    fn nothing_is_said_of_a_line_of_which_nothing_is_known() {
        assert_eq!(speed_ahead(None, LEFT, 0.0, None), None);
    }
}
