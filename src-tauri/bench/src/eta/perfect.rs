//! The best that can be forecast of a simulated pull with what is known by then: a yardstick, by which errors are told as
//! multiples.
//!
//! The perfect forecaster knows the population that lines, images and engines are drawn from, the speed of each step of
//! this line until now, exactly, and how far each layer is. It does not know which kind of line it is, its parameters, or
//! what comes. By Bayes' rule it weighs candidates that are drawn from the population (importance sampling; the
//! line's own speed is integrated out in closed form, as its likelihood is normal in the logarithm), plays the rest
//! of the pull forward from many of them, and tells the median, which has the least mean absolute error of all
//! forecasts. Of a line that was used before it knows kind and parameters, and how long
//! the phases after the pull take; the day's speed is new.

use crate::dice::{Dice, Range};
use crate::lines::{Course, Future, Line, Population, STEP_S, as_f64, index_of};
use crate::simulated::{
    AFTERWARDS_S, EXTRACTION, EXTRACTION_DEVIATION, EXTRACTION_OF_LAYER_S, Engine, SLOTS,
    Simulated, Snapshot,
};
use crate::trace::Link;

/// Candidates of each kind of line.
const CANDIDATES: usize = 2_000;
/// Futures that are played forward.
const FUTURES: usize = 300;
/// Steps that a future has at most.
const MOST_STEPS: usize = 4_000;

/// A perfect forecaster.
#[derive(Debug)]
pub(crate) struct Perfect {
    candidates: Vec<Candidate>,
    /// Bytes per second.
    speed: Range,
    /// The engine, where it was seen before.
    engine: Option<Engine>,
}

/// A line that it may be, but for its speed.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    course: Course,
    jitter: f64,
    /// The probability before anything was seen, as a logarithm.
    prior: f64,
}

/// What a candidate makes of the steps so far.
#[derive(Debug, Clone, Copy)]
struct Judged {
    likelihood: f64,
    /// The logarithm of the line's speed: mean and standard deviation; `None` before there is a step.
    speed: Option<(f64, f64)>,
    /// The logarithm of the burst that is under way, beside the line's speed.
    burst: Option<f64>,
}

/// P10, P50 and P90 of the seconds left of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantiles(pub(crate) [f64; 3]);

impl Perfect {
    /// Returns the forecaster of a line that was never used.
    pub(crate) fn of(population: &Population) -> Self {
        let mut dice = Dice::of(&format!("candidates {}", population.name));
        let mut candidates = Vec::new();
        for link in Link::JUDGED {
            candidates.extend((0..CANDIDATES).map(|_| Candidate {
                course: Course::draw(population, link, &mut dice),
                jitter: dice.between(population.jitter),
                prior: 0.0,
            }));
        }
        Self {
            candidates,
            speed: population.speed,
            engine: None,
        }
    }

    /// Returns the forecaster of a line that was used before, at speeds within this range.
    pub(crate) fn of_known(line: Line, speed: Range, engine: Engine) -> Self {
        Self {
            candidates: vec![Candidate {
                course: line.course,
                jitter: line.jitter,
                prior: 0.0,
            }],
            speed,
            engine: Some(engine),
        }
    }

    /// Returns the seconds left of the run.
    pub(crate) fn forecast(&self, pull: &Simulated, now: &Snapshot, dice: &mut Dice) -> Quantiles {
        let known = index_of(now.on_line.max(0.0) / STEP_S);
        let seen = pull.speeds.get(..known).unwrap_or(&pull.speeds);
        let judged: Vec<_> = self
            .candidates
            .iter()
            .map(|candidate| self.judge(*candidate, seen))
            .collect();
        let best = judged.iter().map(|judged| judged.likelihood);
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<_> = judged
            .iter()
            .map(|judged| (judged.likelihood - best).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        let extraction = Extraction::seen_in(pull, now);
        let arrivals = arrivals(now);
        // Systematic resampling: evenly spaced over the sum of the weights.
        let mut left = Vec::with_capacity(FUTURES);
        let mut candidates = self.candidates.iter().zip(&judged).zip(&weights);
        let mut current = candidates.next();
        let (mut reached, offset) = (0.0, dice.share());
        for sample in 0..FUTURES {
            let wanted = (as_f64(sample) + offset) / as_f64(FUTURES) * sum;
            while let Some((_, weight)) = current
                && reached + weight < wanted
            {
                reached += weight;
                current = candidates.next();
            }
            let Some(((candidate, judged), _)) = current else {
                break;
            };
            let line = Line {
                course: candidate.course,
                speed: self.draw_speed(judged.speed, dice),
                jitter: candidate.jitter,
            };
            let gap = gap_ahead(candidate.course, seen, dice);
            let future = Future::of(line, known, judged.burst, gap);
            let within = now.on_line - as_f64(known) * STEP_S;
            let afterwards = self.engine.map_or_else(
                || AFTERWARDS_S.map(|range| dice.log_between(range)),
                |engine| engine.afterwards,
            );
            let pulled = extraction.play(pull, now, future, within, &arrivals, dice);
            left.push(pulled + afterwards.iter().sum::<f64>());
        }
        left.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let place = index_of(share * as_f64(left.len()));
            left.get(place).copied().unwrap_or_default()
        };
        Quantiles([0.1, 0.5, 0.9].map(quantile))
    }

    fn draw_speed(&self, judged: Option<(f64, f64)>, dice: &mut Dice) -> f64 {
        let Range(low, high) = self.speed;
        match judged {
            Some((mean, deviation)) => {
                let drawn = (mean + deviation * dice.normal()).exp();
                drawn.clamp(low, high)
            }
            None => dice.log_between(self.speed),
        }
    }

    /// Judges a candidate by the steps so far.
    fn judge(&self, candidate: Candidate, seen: &[f64]) -> Judged {
        let mut likelihood = candidate.prior;
        let mut groups = Vec::<Group>::new();
        let burst_steps = match candidate.course {
            Course::Bursty { steps, .. } => steps,
            Course::Steady | Course::Ramping { .. } | Course::Stalling { .. } => usize::MAX,
        };
        let mut moving = 0.0;
        for (step, speed) in seen.iter().enumerate() {
            if *speed <= 0.0 {
                continue;
            }
            moving += 1.0;
            let value = speed.ln() - candidate.course.trend(step);
            if step.is_multiple_of(burst_steps) || groups.is_empty() {
                groups.push(Group::default());
            }
            if let Some(group) = groups.last_mut() {
                group.add(value);
            }
        }
        let is_stalling = matches!(candidate.course, Course::Stalling { .. });
        if moving < as_f64(seen.len()) && !is_stalling {
            likelihood = f64::NEG_INFINITY;
        }
        if let Course::Stalling { every_s, .. } = candidate.course {
            let starts = gap_starts(seen);
            let chance = (STEP_S / every_s).min(0.99);
            likelihood += moving * (1.0 - chance).ln() + as_f64(starts) * chance.ln();
        }
        if groups.is_empty() {
            return Judged {
                likelihood,
                speed: None,
                burst: None,
            };
        }
        let noise = candidate.jitter * candidate.jitter;
        let (between, shift) = match candidate.course {
            Course::Bursty { deviation, .. } => {
                (deviation * deviation, deviation * deviation / 2.0)
            }
            Course::Steady | Course::Ramping { .. } | Course::Stalling { .. } => (0.0, 0.0),
        };
        let tau = std::f64::consts::TAU;
        let (mut precision, mut mean) = (0.0, 0.0);
        for group in &groups {
            let weight = 1.0 / (between + noise / group.count);
            precision += weight;
            mean += weight * group.mean;
        }
        mean /= precision;
        for group in &groups {
            let weight = 1.0 / (between + noise / group.count);
            likelihood -= (group.count - 1.0) / 2.0 * (tau * noise).ln()
                + group.squares / (2.0 * noise)
                + group.count.ln() / 2.0;
            likelihood += (weight / tau).ln() / 2.0 - weight * (group.mean - mean).powi(2) / 2.0;
        }
        likelihood += (tau / precision).ln() / 2.0;
        let deviation = precision.sqrt().recip();
        mean += shift;
        // The speed is within the population's range.
        let Range(low, high) = self.speed;
        let beyond = (low.ln() - mean).max(mean - high.ln()).max(0.0) / deviation;
        likelihood -= beyond * beyond / 2.0;
        let burst = groups.last().filter(|_| between > 0.0).map(|group| {
            let believed = between / (between + noise / group.count);
            believed * (group.mean - mean)
        });
        Judged {
            likelihood,
            speed: Some((mean, deviation)),
            burst,
        }
    }
}

/// Logarithms of speeds that belong together: their number, mean, and sum of squares around it (Welford, Technometrics
/// 4, 1962).
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Group {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }
}

fn gap_starts(seen: &[f64]) -> usize {
    let before = std::iter::once(&1.0).chain(seen);
    seen.iter()
        .zip(before)
        .filter(|(now, before)| **now <= 0.0 && **before > 0.0)
        .count()
}

/// Draws the steps that are left of the gap that is under way, if there is one.
fn gap_ahead(course: Course, seen: &[f64], dice: &mut Dice) -> Option<usize> {
    let Course::Stalling { gap_s, .. } = course else {
        return None;
    };
    let so_far = seen.iter().rev().take_while(|speed| **speed <= 0.0).count();
    if so_far == 0 {
        return None;
    }
    let Range(low, high) = gap_s;
    let least = low.max(as_f64(so_far) * STEP_S).min(high);
    let steps = index_of(dice.between(Range(least, high)) / STEP_S);
    Some(steps.saturating_sub(so_far))
}

/// Returns for each layer how many bytes go over the line from now until it is there.
fn arrivals(now: &Snapshot) -> Vec<f64> {
    let mut left: Vec<f64> = now.layers.iter().map(|(left, _)| *left).collect();
    let mut arrivals = vec![0.0; left.len()];
    let mut carried = 0.0;
    loop {
        let active = || left.iter().filter(|left| **left > 0.0).take(SLOTS);
        let count = as_f64(active().count());
        let Some(least) = active().copied().reduce(f64::min) else {
            return arrivals;
        };
        carried += least * count;
        let layers = left.iter_mut().zip(&mut arrivals);
        for (left, arrival) in layers.filter(|(left, _)| **left > 0.0).take(SLOTS) {
            *left = if *left - least < 0.5 {
                0.0
            } else {
                *left - least
            };
            *arrival = carried;
        }
    }
}

/// What is known of how fast the engine extracts: the logarithm of its seconds for a byte.
#[derive(Debug, Clone, Copy)]
struct Extraction {
    mean: f64,
    deviation: f64,
}

impl Extraction {
    /// Learns from the layers that are extracted, beside the population that engines come from.
    fn seen_in(pull: &Simulated, now: &Snapshot) -> Self {
        let Range(low, high) = EXTRACTION;
        // The mean and the variance of an even distribution.
        let mut precision = 12.0 / (high / low).ln().powi(2);
        let mut mean = -precision * (low * high).sqrt().ln();
        for (layer, (_, extracted)) in pull.image.layers.iter().zip(&now.layers) {
            if *extracted > 0.0 {
                let weight = EXTRACTION_DEVIATION.powi(-2);
                let seconds = (layer.extraction_s - EXTRACTION_OF_LAYER_S).max(1e-9);
                mean += weight * (seconds / layer.bytes).ln();
                precision += weight;
            }
        }
        Self {
            mean: mean / precision,
            deviation: precision.sqrt().recip(),
        }
    }

    /// Returns the seconds until the image is there, if this is how it goes on.
    fn play(
        self,
        pull: &Simulated,
        now: &Snapshot,
        mut future: Future,
        within: f64,
        arrivals: &[f64],
        dice: &mut Dice,
    ) -> f64 {
        let most = arrivals.iter().copied().fold(0.0, f64::max);
        // Bytes and seconds at the end of each step.
        let mut course = vec![(0.0, (-now.on_line).max(0.0))];
        let (mut bytes, mut seconds) = (0.0, (-now.on_line).max(0.0));
        let mut lasts = STEP_S - within.clamp(0.0, STEP_S);
        while bytes < most && course.len() < MOST_STEPS {
            bytes += future.next_speed(dice) * lasts;
            seconds += lasts;
            lasts = STEP_S;
            course.push((bytes, seconds));
        }
        let seconds_of = |wanted: f64| {
            let place = course.partition_point(|(bytes, _)| *bytes < wanted);
            let after = course.get(place).or(course.last()).copied();
            let before = course.get(place.saturating_sub(1)).copied();
            match (before, after) {
                (Some(before), Some(after)) if after.0 > before.0 => {
                    before.1 + (after.1 - before.1) * (wanted - before.0) / (after.0 - before.0)
                }
                (_, Some(after)) => after.1,
                _ => 0.0,
            }
        };
        let per_byte = (self.mean + self.deviation * dice.normal()).exp();
        let mut end = 0.0_f64;
        let layers = pull.image.layers.iter().zip(&now.layers).zip(arrivals);
        for ((layer, (_, extracted)), arrival) in layers {
            let whole = if *extracted > 0.0 {
                layer.extraction_s
            } else {
                let factor = (EXTRACTION_DEVIATION * dice.normal()).exp();
                EXTRACTION_OF_LAYER_S + layer.bytes * per_byte * factor
            };
            let arrival = if *arrival > 0.0 {
                seconds_of(*arrival)
            } else {
                0.0
            };
            end = end.max(arrival) + whole * (1.0 - extracted).max(0.0);
        }
        end
    }
}
