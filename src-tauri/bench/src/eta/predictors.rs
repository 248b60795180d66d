//! What each formula tells of the remaining time, at every moment at which Cove told something. All see the same
//! messages of the engine, and none sees what comes later.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use cove_core::engine::LayerStep;
use cove_core::event::Phase;

use crate::trace::{Link, Message, Told, Trace};

/// A way to tell the remaining time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Predictor {
    /// What Cove told.
    Cove,
    /// The average of earlier runs, phase by phase.
    Average,
    /// Elapsed time by the share of what is done.
    Share,
    /// Bytes left by the recent rate.
    Rate,
}

/// Milliseconds left; `None` where the predictor has no answer.
pub(crate) type Remaining = Option<f64>;

impl Predictor {
    pub(crate) const ALL: [Self; 4] = [Self::Cove, Self::Average, Self::Share, Self::Rate];
    pub(crate) const BASELINES: [Self; 3] = [Self::Average, Self::Share, Self::Rate];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cove => "Cove",
            Self::Average => "phase averages",
            Self::Share => "elapsed / share",
            Self::Rate => "bytes / rate",
        }
    }

    /// Returns what is predicted at each progress event of a run.
    pub(crate) fn predict(self, trace: &Trace, averages: &Averages) -> Vec<Remaining> {
        match self {
            Self::Cove => trace.events.iter().map(Told::eta_ms).collect(),
            Self::Average => by_average(trace, &averages.expected(trace)),
            Self::Share => by_share(trace),
            Self::Rate => by_rate(trace),
        }
    }
}

/// Average durations of the phases by link and image, as earlier runs have taught them.
#[derive(Debug, Default)]
pub(crate) struct Averages(HashMap<(Link, String), [f64; 5]>);

impl Averages {
    /// The weight of the newest run.
    const ALPHA: f64 = 0.3;
    /// What is expected before anything was learned, in milliseconds.
    const DEFAULTS: [f64; 5] = [2e3, 30e3, 5e3, 10e3, 15e3];

    /// Takes in a successful run. The first of its kind is believed as it is, rather than mixed with the defaults,
    /// which would leave two thirds of them in.
    pub(crate) fn learn(&mut self, trace: &Trace) {
        let newest = Phase::WORKING.map(|phase| trace.duration_of(phase));
        let key = (trace.link, trace.image.clone());
        let averages = self.0.entry(key).or_insert(newest);
        for (average, newest) in averages.iter_mut().zip(newest) {
            *average = Self::ALPHA * newest + (1.0 - Self::ALPHA) * *average;
        }
    }

    fn expected(&self, trace: &Trace) -> [f64; 5] {
        let key = (trace.link, trace.image.clone());
        self.0.get(&key).copied().unwrap_or(Self::DEFAULTS)
    }
}

/// `max(0, expected(current) − elapsed in it) + Σ expected(later)`, where `expected` is an exponential moving average
/// per image and phase: `average ← 0.3 × newest + 0.7 × average`.
fn by_average(trace: &Trace, expected: &[f64; 5]) -> Vec<Remaining> {
    let remaining = |at_ms: f64, current: Phase| {
        let phases = Phase::WORKING.into_iter().zip(expected);
        phases
            .map(|(phase, expected)| match phase.cmp(&current) {
                Ordering::Less => 0.0,
                Ordering::Equal => (expected - (at_ms - trace.start_of(phase))).max(0.0),
                Ordering::Greater => *expected,
            })
            .sum()
    };
    let events = trace.events.iter();
    events
        .map(|told| Some(remaining(told.at_ms, told.phase)))
        .collect()
}

/// `elapsed × (1 − p) / p`, where `p = (bytes downloaded + bytes extracted) / (2 × bytes known so far)` and `elapsed`
/// counts from the press.
fn by_share(trace: &Trace) -> Vec<Remaining> {
    let mut layers = Layers::new(&trace.messages);
    let events = trace.events.iter();
    events
        .map(|told| {
            layers.until(told.at_ms);
            let share = (layers.downloaded() + layers.extracted()) / (2.0 * layers.known());
            (share > 0.0).then(|| told.at_ms * (1.0 - share.min(1.0)) / share)
        })
        .collect()
}

/// `(bytes known so far − bytes downloaded) / rate`, where `rate` is the exponentially weighted average of the download
/// rate with a half-life of 3 s, taken every 100 ms and corrected for its short past; 0 when all is downloaded.
fn by_rate(trace: &Trace) -> Vec<Remaining> {
    const STEP_MS: f64 = 100.0;
    const HALF_LIFE_MS: f64 = 3_000.0;
    let keep = 0.5_f64.powf(STEP_MS / HALF_LIFE_MS);
    let mut layers = Layers::new(&trace.messages);
    // The download's own begin: what passed before says nothing about the rate.
    let begin = trace.messages.first().map_or(0.0, |message| message.at_ms);
    let (mut next, mut before) = (begin + STEP_MS, 0.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let events = trace.events.iter();
    events
        .map(|told| {
            while next <= told.at_ms {
                layers.until(next);
                let bytes = layers.downloaded();
                sum = keep * sum + (1.0 - keep) * (bytes - before).max(0.0) / STEP_MS;
                weight = keep * weight + (1.0 - keep);
                before = bytes;
                next += STEP_MS;
            }
            layers.until(told.at_ms);
            let known = layers.known();
            let left = (known - layers.downloaded()).max(0.0);
            if known > 0.0 && left < 1.0 {
                return Some(0.0);
            }
            let rate = if weight > 0.0 { sum / weight } else { 0.0 };
            // A rate of a byte a second is none: it only fades.
            (known > 0.0 && rate > 1e-3).then(|| left / rate)
        })
        .collect()
}

/// The layers of a pull as far as a stretch of its messages tells.
struct Layers<'a> {
    ahead: &'a [Message],
    layers: BTreeMap<&'a str, Layer>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    total: f64,
    downloaded: f64,
    extracted: f64,
}

impl<'a> Layers<'a> {
    fn new(messages: &'a [Message]) -> Self {
        Self {
            ahead: messages,
            layers: BTreeMap::new(),
        }
    }

    /// Takes in the messages up to this time.
    fn until(&mut self, at_ms: f64) {
        while let Some((message, ahead)) = self.ahead.split_first() {
            if message.at_ms > at_ms {
                return;
            }
            self.ahead = ahead;
            let layer = self.layers.entry(&message.said.layer).or_default();
            match message.said.step {
                LayerStep::Announced | LayerStep::Existing => {}
                LayerStep::Downloading { current, total } => {
                    layer.total = layer.total.max(as_f64(total.unwrap_or_default()));
                    layer.downloaded = as_f64(current);
                }
                LayerStep::Retrying => layer.downloaded = 0.0,
                LayerStep::Downloaded => layer.downloaded = layer.total,
                LayerStep::Extracting { current, total } => {
                    layer.total = layer.total.max(as_f64(total.unwrap_or_default()));
                    layer.downloaded = layer.total;
                    layer.extracted = as_f64(current).min(layer.total);
                }
                LayerStep::Done => {
                    layer.downloaded = layer.total;
                    layer.extracted = layer.total;
                }
            }
        }
    }

    /// Returns the bytes of all layers whose size is known.
    fn known(&self) -> f64 {
        self.layers.values().map(|layer| layer.total).sum()
    }

    fn downloaded(&self) -> f64 {
        self.layers.values().map(|layer| layer.downloaded).sum()
    }

    fn extracted(&self) -> f64 {
        self.layers.values().map(|layer| layer.extracted).sum()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an image is far below 2^53 bytes"
)]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::example::{self, downloading, extracting};

    /// A pull of 10 MB at 1 MB/s that begins at once, then 5 s of extraction.
    fn trace() -> Trace {
        let mut messages = vec![(0.0, "a", LayerStep::Announced)];
        for tenth in 1..=100_u32 {
            let at = f64::from(tenth) * 100.0;
            messages.push((at, "a", downloading(u64::from(tenth) * 100_000, 10_000_000)));
        }
        messages.push((12_500.0, "a", extracting(5_000_000, 10_000_000)));
        messages.push((15_000.0, "a", LayerStep::Done));
        let at = [0.0, 2_000.0, 5_000.0, 12_500.0, 15_500.0];
        example::trace(
            [0.0, 0.0, 15_000.0, 15_000.0, 15_000.0],
            17_000.0,
            &messages,
            &at,
        )
    }

    #[track_caller]
    fn check(predictor: Predictor, averages: &Averages, expected: [Remaining; 5]) {
        let predicted = predictor.predict(&trace(), averages);
        let rounded: Vec<_> = predicted.iter().map(|ms| ms.map(f64::round)).collect();
        assert_eq!(rounded, expected, "{predictor:?}");
    }

    #[test]
    fn averages_begin_with_the_defaults_and_count_all_remaining_phases() {
        let remaining = [60e3, 58e3, 55e3, 47.5e3, 14.5e3].map(Some);
        check(Predictor::Average, &Averages::default(), remaining);
    }

    #[test]
    fn averages_of_one_run_are_that_run() {
        let mut averages = Averages::default();
        averages.learn(&trace());
        let remaining = [17e3, 15e3, 12e3, 4.5e3, 1.5e3].map(Some);
        check(Predictor::Average, &averages, remaining);
    }

    #[test]
    fn the_newest_run_weighs_three_tenths() {
        let mut averages = Averages::default();
        averages.learn(&trace());
        let longer = example::trace([0.0, 0.0, 25e3, 25e3, 25e3], 27e3, &[], &[]);
        averages.learn(&longer);
        assert!((averages.expected(&trace())[1] - 18e3).abs() < 1e-6);
    }

    #[test]
    fn a_share_is_of_download_and_extraction_together() {
        // 10 % after 2 s, 25 % after 5 s, 75 % after 12.5 s.
        let remaining = [None, Some(18e3), Some(15e3), Some(4_167.0), Some(0.0)];
        check(Predictor::Share, &Averages::default(), remaining);
    }

    #[test]
    fn an_even_rate_is_found_and_knows_nothing_beyond_the_download() {
        let remaining = [None, Some(8e3), Some(5e3), Some(0.0), Some(0.0)];
        check(Predictor::Rate, &Averages::default(), remaining);
    }
}
