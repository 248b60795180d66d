//! What earlier runs took: some recent samples of each kind of work, of successful runs only. It is
//! kept across restarts, bounded in size, and may be lost without harm.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::as_f64;
use super::calibration::Adapted;
use super::forecast::LogNormal;
use super::line::LineFit;
use super::spread::Spread;
use super::stalls::Stalls;
use crate::layer::LayerSize;
use crate::progress::Phase;
use crate::timing::TimingReport;

/// Samples of a kind that are kept; the oldest goes first.
const MAX_SAMPLES: usize = 20;
/// Kinds of a sort, images and layers that are kept; what was used longest ago goes first.
const MAX_KINDS: usize = 60;
const MAX_IMAGES: usize = 100;
const MAX_LAYERS: usize = 1_000;
const MAX_REPORTS: usize = 100;
const MAX_SCORES: usize = 60;
/// How much a sample weighs beside the next newer one.
const FADE: f64 = 0.85;

/// Seconds that a phase takes before anything was learned; weak, and soon replaced. The pull has
/// none: no default is evidence for a line.
const FIRST_GUESS_S: [f64; 5] = [0.02, 0.02, 0.02, 0.15, 0.45];
/// The same for loading the built-in image.
const FIRST_GUESS_LOAD_S: f64 = 1.0;
/// Seconds until a registry sends the first byte.
const FIRST_GUESS_WAITING_S: f64 = 0.5;
/// P90 of a guess, as a multiple of its middle.
const GUESS_FACTOR: f64 = 3.0;
/// P90 of what has been seen once.
const ONCE_FACTOR: f64 = 2.0;
/// P90 of a normal distribution, as a multiple of its median absolute deviation.
const P90_OF_MEDIAN_DEVIATION: f64 = 1.9;
/// P90 of what has always been the same: no work is more regular.
const LEAST_FACTOR: f64 = 1.5;

/// Seconds of extraction for a layer of any size, and for a byte of it as it was downloaded.
const EXTRACTION_OF_LAYER_S: f64 = 0.06;
const FIRST_GUESS_EXTRACTION_S: f64 = 1.0 / 40e6;

/// The variance of the logarithm of a line's speed from day to day: when it was seen once, and at
/// least.
const LINE_SEEN_ONCE: f64 = 0.09;
const LINE_LEAST: f64 = 0.03;
/// The variance of a quarter's time, at least: a hundredth of the pull either way.
const SHAPE_LEAST: f64 = 0.0001;

/// A quarter of the bytes takes at least this share of the time.
const LEAST_QUARTER: f64 = 0.01;

/// What a run's durations depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKind {
    /// The engine's address.
    pub engine: String,
    /// The registry's host.
    pub registry: String,
    /// The normalised image reference.
    pub image: String,
    /// Where the image comes from.
    pub source: ImageSource,
}

/// Where a run's image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// It is on the engine.
    Engine,
    /// It is loaded from the app.
    BuiltIn,
    /// It is pulled.
    Registry,
}

/// The figures of one successful run, from which history learns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunSample {
    /// Seconds that the phases took, in order; `None` for one that says nothing about others.
    pub phases: [Option<f64>; 5],
    /// Those of its pull.
    pub pull: Option<PullSample>,
    /// How good the forecasts during its pull were, as conformal scores.
    pub scores: Vec<f64>,
}

/// The figures of one successful pull.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PullSample {
    /// Bytes per second while bytes were awaited, stalls left out.
    pub rate: Option<f64>,
    /// How its bytes were spread over that time.
    pub shape: Option<Shape>,
    /// How its line went.
    pub fit: Option<LineFit>,
    /// Times that the line stood still.
    pub stalls: u32,
    /// Seconds in which it stood still.
    pub stalled_s: f64,
    /// Seconds in which it moved.
    pub moved_s: f64,
    /// Seconds until the first byte.
    pub waiting: Option<f64>,
    /// The image's layers, in order.
    pub layers: Vec<LayerMemory>,
}

/// How the bytes of a pull are spread over its time: the shares of the time after which a quarter, a
/// half and three quarters of them are there. Lines differ: one speeds up, another is slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape {
    pub(super) quarters: [f64; 3],
}

impl Shape {
    /// A line that is always the same.
    pub(super) const EVEN: Self = Self {
        quarters: [0.25, 0.5, 0.75],
    };

    /// Returns the share of the time after which this share of the bytes is there.
    pub(super) fn time_of(self, bytes: f64) -> f64 {
        let [first, second, third] = self.quarters;
        let place = (4.0 * bytes).clamp(0.0, 4.0);
        match place {
            place if place < 1.0 => place * first,
            place if place < 2.0 => first + (place - 1.0) * (second - first),
            place if place < 3.0 => second + (place - 2.0) * (third - second),
            place => third + (place - 3.0) * (1.0 - third),
        }
    }

    /// Returns the speed at this share of the time, as a multiple of the mean.
    pub(super) fn speed_at(self, time: f64) -> f64 {
        let [first, second, third] = self.quarters;
        let quarter = match time {
            time if time < first => first,
            time if time < second => second - first,
            time if time < third => third - second,
            _ => 1.0 - third,
        };
        0.25 / quarter.max(LEAST_QUARTER)
    }
}

/// What is remembered of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerMemory {
    /// As engines name it in a pull.
    pub id: String,
    /// Bytes to download.
    pub bytes: u64,
    /// Seconds that extracting it took, where that was seen.
    pub extraction_s: Option<f64>,
}

/// Durations of earlier runs, some samples of each. Serialises as what is kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Counts runs, to know what was used last.
    runs: u64,
    /// Seconds, by engine, phase and source of the image.
    phases: Shelf<VecDeque<f64>>,
    /// By engine and registry.
    lines: Shelf<VecDeque<LineSample>>,
    /// Seconds for each byte, by engine.
    extraction: Shelf<VecDeque<f64>>,
    /// Layers of an image, by reference.
    images: Shelf<Vec<String>>,
    layers: Shelf<LayerMemory>,
    /// Of the last run of a session, by its id.
    reports: Shelf<TimingReport>,
    /// Conformal scores of recent pulls, from any registry.
    scores: VecDeque<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct LineSample {
    rate: f64,
    shape: Shape,
    /// Share of the time in which it stood still.
    stalled: f64,
    waiting: f64,
    // What follows is not in older files.
    #[serde(default)]
    fit: Option<LineFit>,
    #[serde(default)]
    stalls: u32,
    #[serde(default)]
    moved_s: f64,
}

/// What is usual for a kind of run.
#[derive(Debug, Clone, PartialEq)]
pub struct Usual {
    phases: [(Spread, bool); 5],
    /// For a run that pulls its image.
    pub pull: Option<PullUsual>,
    /// By how much recent pulls move the bounds of forecasts.
    pub(super) adapted: Adapted,
}

/// What is usual for a pull.
#[derive(Debug, Clone, PartialEq)]
pub struct PullUsual {
    /// The line to the registry; `None` when it was never used.
    pub(super) line: Option<LineUsual>,
    /// The time until the first byte.
    pub(super) waiting: Spread,
    /// The image's layers as they were at its last pull; empty when it was never pulled.
    pub(super) image: Vec<LayerMemory>,
    /// Whether an extraction was ever seen on this engine.
    pub(super) knows_extraction: bool,
    extraction_of_byte: f64,
    layers: BTreeMap<String, LayerMemory>,
}

/// What is usual for a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LineUsual {
    /// Its bytes per second, and how they vary between pulls.
    pub speed: LogNormal,
    /// How its bytes are usually spread over the time of a pull.
    pub shape: Shape,
    /// How far that is from what a pull turns out to be: the variance of a quarter's time.
    pub shape_variance: f64,
    /// Share of the time in which it stands still.
    pub stalled: f64,
    /// Pulls that this rests on.
    pub pulls: f64,
    /// How it went on each of them.
    pub fits: Vec<LineFit>,
    /// Its stalls on all of them.
    pub stalls: Stalls,
}

impl History {
    /// Adds a successful run.
    pub fn learn(&mut self, kind: &RunKind, sample: RunSample) {
        self.runs += 1;
        let now = self.runs;
        for (phase, seconds) in Phase::WORKING.into_iter().zip(sample.phases) {
            if let Some(seconds) = seconds {
                remember(self.phases.at(phase_key(kind, phase), now), seconds);
            }
        }
        if let Some(pull) = sample.pull {
            self.learn_pull(kind, pull);
        }
        let scores = sample.scores.into_iter();
        self.scores.extend(scores.filter(|score| score.is_finite()));
        while self.scores.len() > MAX_SCORES {
            self.scores.pop_front();
        }
        self.phases.trim(MAX_KINDS);
        self.lines.trim(MAX_KINDS);
        self.extraction.trim(MAX_KINDS);
        self.images.trim(MAX_IMAGES);
        self.layers.trim(MAX_LAYERS);
    }

    fn learn_pull(&mut self, kind: &RunKind, pull: PullSample) {
        let now = self.runs;
        if let Some(rate) = pull.rate.filter(|rate| *rate > 0.0) {
            let sample = LineSample {
                rate,
                shape: pull.shape.unwrap_or(Shape::EVEN),
                stalled: pull.stalled_s / (pull.stalled_s + pull.moved_s).max(1e-9),
                fit: pull.fit,
                stalls: pull.stalls,
                moved_s: pull.moved_s,
                waiting: pull.waiting.unwrap_or(FIRST_GUESS_WAITING_S),
            };
            remember(self.lines.at(line_key(kind), now), sample);
        }
        let (mut bytes, mut seconds) = (0.0, 0.0);
        for layer in &pull.layers {
            if let Some(took) = layer.extraction_s {
                bytes += as_f64(layer.bytes);
                seconds += (took - EXTRACTION_OF_LAYER_S).max(0.0);
            }
        }
        if bytes > 1e6 {
            let per_byte = (seconds / bytes).max(1e-10);
            remember(self.extraction.at(kind.engine.clone(), now), per_byte);
        }
        let ids = pull.layers.iter().map(|layer| layer.id.clone()).collect();
        self.images.put(kind.image.clone(), ids, now);
        for mut layer in pull.layers {
            let known = self
                .layers
                .get(&layer.id)
                .and_then(|known| known.extraction_s);
            layer.extraction_s = layer.extraction_s.or(known);
            self.layers.put(layer.id.clone(), layer, now);
        }
    }

    /// Keeps where the time of a session's last run went.
    pub fn keep_report(&mut self, session: String, report: TimingReport) {
        self.runs += 1;
        self.reports.put(session, report, self.runs);
        self.reports.trim(MAX_REPORTS);
    }

    /// Returns where the time of a session's last run went, if that is remembered.
    #[must_use]
    pub fn report(&self, session: &str) -> Option<&TimingReport> {
        self.reports.get(session)
    }

    /// Forgets a session, and says whether anything was remembered of it.
    pub fn forget_report(&mut self, session: &str) -> bool {
        self.reports.kept.remove(session).is_some()
    }

    /// Returns what is usual for a kind of run.
    #[must_use]
    pub fn usual(&self, kind: &RunKind) -> Usual {
        let phases = Phase::WORKING.map(|phase| {
            let samples = self.phases.get(&phase_key(kind, phase));
            let learned = samples.and_then(spread_of);
            let guess = || Spread::new(first_guess(phase, kind.source), GUESS_FACTOR);
            (learned.unwrap_or_else(guess), learned.is_some())
        });
        let pull = match kind.source {
            ImageSource::Engine | ImageSource::BuiltIn => None,
            ImageSource::Registry => Some(self.usual_pull(kind)),
        };
        let adapted = match kind.source {
            ImageSource::Engine | ImageSource::BuiltIn => Adapted::default(),
            ImageSource::Registry => Adapted::by(self.scores.iter().copied()),
        };
        Usual {
            phases,
            pull,
            adapted,
        }
    }

    fn usual_pull(&self, kind: &RunKind) -> PullUsual {
        let samples = self.lines.get(&line_key(kind));
        let waiting = samples
            .map(|samples| samples.iter().map(|sample| sample.waiting).collect())
            .and_then(|samples| spread_of(&samples));
        let extraction = self
            .extraction
            .get(&kind.engine)
            .and_then(|samples| middle_of(samples.iter().copied()));
        let ids = self.images.get(&kind.image).into_iter().flatten();
        let layers: BTreeMap<_, _> = self
            .layers
            .iter()
            .map(|layer| (layer.id.clone(), layer.clone()))
            .collect();
        PullUsual {
            line: samples.and_then(line_of),
            waiting: waiting.unwrap_or_else(|| Spread::new(FIRST_GUESS_WAITING_S, GUESS_FACTOR)),
            image: ids.filter_map(|id| layers.get(id).cloned()).collect(),
            knows_extraction: extraction.is_some(),
            extraction_of_byte: extraction.unwrap_or(FIRST_GUESS_EXTRACTION_S),
            layers,
        }
    }
}

impl Usual {
    /// Returns how long a phase usually takes; nothing for [`Phase::Ready`].
    #[must_use]
    pub fn of(&self, phase: Phase) -> Option<Spread> {
        self.slot(phase).map(|(spread, _)| spread)
    }

    /// Returns whether a phase's duration was learned, rather than guessed.
    #[must_use]
    pub fn is_learned(&self, phase: Phase) -> bool {
        self.slot(phase).is_some_and(|(_, learned)| learned)
    }

    fn slot(&self, phase: Phase) -> Option<(Spread, bool)> {
        of_phase(&self.phases, phase)
    }
}

impl PullUsual {
    /// Returns the sizes of all layers that are remembered.
    pub fn sizes(&self) -> impl Iterator<Item = LayerSize> {
        self.layers.values().map(|layer| LayerSize {
            digest: layer.id.clone(),
            bytes: layer.bytes,
        })
    }

    /// Returns whether extracting this layer was seen before.
    pub(super) fn remembers(&self, layer: &str) -> bool {
        self.layers
            .get(layer)
            .is_some_and(|layer| layer.extraction_s.is_some())
    }

    /// Returns the seconds that extracting a layer takes.
    pub(super) fn extraction_of(&self, layer: &str, bytes: u64) -> f64 {
        let known = self.layers.get(layer).and_then(|layer| layer.extraction_s);
        known.unwrap_or(EXTRACTION_OF_LAYER_S + as_f64(bytes) * self.extraction_of_byte)
    }
}

/// Things by name, with the run that used each last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Shelf<T> {
    kept: BTreeMap<String, Kept<T>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept<T> {
    last_run: u64,
    what: T,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            kept: BTreeMap::new(),
        }
    }
}

impl<T: Default> Shelf<T> {
    fn at(&mut self, name: String, run: u64) -> &mut T {
        let kept = self.kept.entry(name).or_insert_with(|| Kept {
            last_run: run,
            what: T::default(),
        });
        kept.last_run = run;
        &mut kept.what
    }
}

impl<T> Shelf<T> {
    fn put(&mut self, name: String, what: T, run: u64) {
        let kept = Kept {
            last_run: run,
            what,
        };
        self.kept.insert(name, kept);
    }

    fn get(&self, name: &str) -> Option<&T> {
        self.kept.get(name).map(|kept| &kept.what)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.kept.values().map(|kept| &kept.what)
    }

    fn trim(&mut self, most: usize) {
        while self.kept.len() > most {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.last_run);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            self.kept.remove(&oldest);
        }
    }
}

fn first_guess(phase: Phase, source: ImageSource) -> f64 {
    if (phase, source) == (Phase::PullingImage, ImageSource::BuiltIn) {
        return FIRST_GUESS_LOAD_S;
    }
    of_phase(&FIRST_GUESS_S, phase).unwrap_or_default()
}

/// Returns what belongs to a phase in a row of all working ones.
fn of_phase<T: Copy>(row: &[T; 5], phase: Phase) -> Option<T> {
    let mut row = Phase::WORKING.into_iter().zip(row);
    row.find(|(working, _)| *working == phase)
        .map(|(_, item)| *item)
}

fn phase_key(kind: &RunKind, phase: Phase) -> String {
    let source = match kind.source {
        ImageSource::Engine => "cached",
        ImageSource::BuiltIn => "built-in",
        ImageSource::Registry => "cold",
    };
    format!("{} {phase:?} {source}", kind.engine)
}

fn line_key(kind: &RunKind) -> String {
    format!("{} {}", kind.engine, kind.registry)
}

fn remember<T>(samples: &mut VecDeque<T>, sample: T) {
    samples.push_back(sample);
    while samples.len() > MAX_SAMPLES {
        samples.pop_front();
    }
}

fn spread_of(samples: &VecDeque<f64>) -> Option<Spread> {
    let middle = middle_of(samples.iter().copied())?;
    if samples.len() == 1 {
        return Some(Spread::new(middle, ONCE_FACTOR));
    }
    // The median absolute deviation says more of a few samples than their extremes do.
    let distances = samples
        .iter()
        .map(|sample| (sample.max(0.001) / middle.max(0.001)).ln().abs());
    let factor = (P90_OF_MEDIAN_DEVIATION * middle_of(distances)?)
        .exp()
        .max(LEAST_FACTOR);
    Some(Spread::new(middle, factor))
}

fn line_of(samples: &VecDeque<LineSample>) -> Option<LineUsual> {
    let log_mean = middle_of(samples.iter().map(|sample| sample.rate.ln()))?;
    let mean_of = |of: &dyn Fn(&LineSample) -> f64| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (weight, sample) in weights_of(samples.len()).zip(samples) {
            sum += weight * of(sample);
            weights += weight;
        }
        sum / weights
    };
    let between = mean_of(&|sample| (sample.rate.ln() - log_mean).powi(2));
    let count = as_f64(samples.len() as u64);
    // What was seen once or twice varies by more than it shows, and may be chance: an even line that
    // was never seen counts as one sample.
    let weight = count / (count + 1.0);
    let mut shape = Shape::EVEN;
    for (place, quarter) in shape.quarters.iter_mut().enumerate() {
        let of = |shape: Shape| shape.quarters.get(place).copied().unwrap_or_default();
        let usual = mean_of(&|sample| of(sample.shape));
        *quarter = weight * usual + (1.0 - weight) * of(Shape::EVEN);
    }
    let distance = |sample: &LineSample| {
        let quarters = sample.shape.quarters.iter().zip(shape.quarters);
        quarters
            .map(|(one, other)| (one - other).powi(2))
            .sum::<f64>()
            / 3.0
    };
    Some(LineUsual {
        speed: LogNormal {
            mean: log_mean,
            variance: ((between * (count - 1.0) + LINE_SEEN_ONCE) / count).max(LINE_LEAST),
        },
        shape,
        shape_variance: mean_of(&distance).max(SHAPE_LEAST),
        stalled: mean_of(&|sample| sample.stalled),
        pulls: count,
        fits: samples.iter().filter_map(|sample| sample.fit).collect(),
        stalls: samples.iter().fold(Stalls::default(), |stalls, sample| {
            let stood = sample.stalled / (1.0 - sample.stalled).max(1e-3) * sample.moved_s;
            stalls.with(sample.stalls, stood, sample.moved_s)
        }),
    })
}

/// Returns the weights of samples, oldest first: the newest weighs 1.
fn weights_of(count: usize) -> impl Iterator<Item = f64> {
    let ages = (0..i32::try_from(count).unwrap_or(i32::MAX)).rev();
    ages.map(|age| FADE.powi(age))
}

/// Returns the weighted median of samples, oldest first; between two, the mean of both.
fn middle_of(samples: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let weights = weights_of(samples.len());
    let mut weighted: Vec<(f64, f64)> = samples.zip(weights).collect();
    weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = weighted.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for (place, (sample, weight)) in weighted.iter().enumerate() {
        below += weight;
        if (below - half).abs() < 1e-9 {
            let next = weighted.get(place + 1).map_or(*sample, |(next, _)| *next);
            return Some(f64::midpoint(*sample, next));
        }
        if below > half {
            return Some(*sample);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(image: &str, source: ImageSource) -> RunKind {
        RunKind {
            engine: "unix:///run/docker.sock".to_owned(),
            registry: "docker.io".to_owned(),
            image: image.to_owned(),
            source,
        }
    }

    fn started_in(seconds: f64) -> RunSample {
        RunSample {
            phases: [None, None, None, None, Some(seconds)],
            ..RunSample::default()
        }
    }

    fn pulled_at(rate: f64, layers: &[(&str, u64)]) -> RunSample {
        let layers = layers.iter().map(|&(id, bytes)| LayerMemory {
            id: id.to_owned(),
            bytes,
            extraction_s: Some(1.0),
        });
        RunSample {
            pull: Some(PullSample {
                rate: Some(rate),
                waiting: Some(0.2),
                layers: layers.collect(),
                ..PullSample::default()
            }),
            ..RunSample::default()
        }
    }

    fn middle(history: &History, kind: &RunKind, phase: Phase) -> f64 {
        history
            .usual(kind)
            .of(phase)
            .unwrap()
            .middle()
            .as_secs_f64()
    }

    #[test]
    fn the_middle_of_recent_runs_is_usual_and_one_odd_run_changes_little() {
        let mut history = History::default();
        let cached = kind("python", ImageSource::Engine);
        for seconds in [1.0, 1.1, 0.9, 60.0, 1.0] {
            history.learn(&cached, started_in(seconds));
        }
        let usual = middle(&history, &cached, Phase::StartingContainer);
        assert!((0.9..=1.1).contains(&usual), "{usual}");
    }

    #[test]
    fn what_has_changed_for_good_is_believed_soon() {
        let mut history = History::default();
        let cached = kind("python", ImageSource::Engine);
        for seconds in [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0] {
            history.learn(&cached, started_in(seconds));
        }
        let usual = middle(&history, &cached, Phase::StartingContainer);
        assert!((usual - 3.0).abs() < 1e-9, "{usual}");
    }

    #[test]
    fn another_image_learns_how_this_engine_starts_containers() {
        let mut history = History::default();
        history.learn(&kind("python", ImageSource::Engine), started_in(3.0));
        let node = kind("node", ImageSource::Engine);
        assert!((middle(&history, &node, Phase::StartingContainer) - 3.0).abs() < 1e-9);
        assert!(history.usual(&node).is_learned(Phase::StartingContainer));
        let cold = kind("node", ImageSource::Registry);
        assert!(!history.usual(&cold).is_learned(Phase::StartingContainer));
    }

    #[test]
    fn another_image_of_the_registry_learns_the_line_and_the_layers_it_shares() {
        let mut history = History::default();
        let python = kind("python", ImageSource::Registry);
        history.learn(&python, pulled_at(2e6, &[("base", 5_000_000), ("own", 7)]));
        let node = history
            .usual(&kind("node", ImageSource::Registry))
            .pull
            .unwrap();
        assert!((node.line.as_ref().unwrap().speed.mean - 2e6_f64.ln()).abs() < 1e-9);
        assert_eq!(node.image, []);
        assert!((node.extraction_of("base", 0) - 1.0).abs() < 1e-9);
        let elsewhere = RunKind {
            registry: "quay.io".to_owned(),
            ..python
        };
        let elsewhere = history.usual(&elsewhere).pull.unwrap();
        assert_eq!(elsewhere.line, None);
        assert_eq!(elsewhere.image.len(), 2);
    }

    #[test]
    fn a_default_is_no_evidence_for_a_line() {
        let usual = History::default().usual(&kind("python", ImageSource::Registry));
        assert_eq!(usual.pull.unwrap().line, None);
    }

    #[test]
    fn a_line_that_varies_from_day_to_day_is_trusted_less() {
        let line = |rates: &[f64]| {
            let mut history = History::default();
            let python = kind("python", ImageSource::Registry);
            for rate in rates {
                history.learn(&python, pulled_at(*rate, &[]));
            }
            history
                .usual(&python)
                .pull
                .unwrap()
                .line
                .unwrap()
                .speed
                .variance
        };
        assert!(line(&[1e6, 1e6, 1e6, 1e6]) < line(&[1e6]));
        assert!(line(&[1e6]) < line(&[1e6, 4e6, 1e6, 4e6]));
    }

    #[test]
    fn a_line_of_an_older_file_is_still_one() {
        let text = r#"{"lines":{"a b":{"last_run":1,"what":[
            {"rate":2e6,"shape":[0.25,0.5,0.75],"stalled":0.1,"waiting":0.3}]}}}"#;
        let history: History = serde_json::from_str(text).unwrap();
        let line = line_of(history.lines.get("a b").unwrap()).unwrap();
        assert!((line.speed.mean - 2e6_f64.ln()).abs() < 1e-9, "{line:?}");
        assert_eq!((line.fits.len(), line.stalls), (0, Stalls::default()));
    }

    #[test]
    fn scores_of_any_registry_move_the_bounds_and_only_recent_ones_are_kept() {
        let mut history = History::default();
        let scored = |score: f64| RunSample {
            scores: vec![score; 3],
            ..RunSample::default()
        };
        for _ in 0..100 {
            history.learn(&kind("python", ImageSource::Registry), scored(3.0));
        }
        history.learn(&kind("python", ImageSource::Registry), scored(f64::NAN));
        assert_eq!(history.scores.len(), MAX_SCORES);
        let elsewhere = RunKind {
            registry: "quay.io".to_owned(),
            ..kind("node", ImageSource::Registry)
        };
        let (lower, upper) = history.usual(&elsewhere).adapted.factors();
        assert!(lower < 1.0 && upper > 1.5, "{lower} {upper}");
        let cached = history.usual(&kind("node", ImageSource::Engine));
        assert_eq!(cached.adapted, Adapted::default());
    }

    #[test]
    fn history_stays_small_and_keeps_what_was_used_last() {
        let mut history = History::default();
        for image in 0..3 * MAX_IMAGES {
            let (image, registry) = (format!("image-{image}"), format!("registry-{image}"));
            let layers: Vec<_> = (0..12).map(|layer| format!("{image}-{layer}")).collect();
            let layers: Vec<_> = layers.iter().map(|id| (id.as_str(), 1)).collect();
            let kind = RunKind {
                registry,
                ..kind(&image, ImageSource::Registry)
            };
            history.learn(&kind, pulled_at(1e6, &layers));
            history.learn(&kind, started_in(1.0));
        }
        assert_eq!(history.images.kept.len(), MAX_IMAGES);
        assert_eq!(history.layers.kept.len(), MAX_LAYERS);
        assert_eq!(history.lines.kept.len(), MAX_KINDS);
        assert!(
            history
                .phases
                .iter()
                .all(|samples| samples.len() <= MAX_SAMPLES)
        );
        let last = format!("image-{}", 3 * MAX_IMAGES - 1);
        let usual = history
            .usual(&kind(&last, ImageSource::Registry))
            .pull
            .unwrap();
        assert_eq!(usual.image.len(), 12);
        let size = serde_json::to_string(&history).unwrap().len();
        assert!(size < 200_000, "{size} bytes");
    }

    #[test]
    fn history_survives_being_written_and_read() {
        let mut history = History::default();
        let python = kind("python", ImageSource::Registry);
        history.learn(&python, pulled_at(1e6, &[("base", 5_000_000)]));
        history.learn(&python, started_in(1.0));
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }
}
