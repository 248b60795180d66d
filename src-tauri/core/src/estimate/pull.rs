//! A pull, layer by layer: one number for all of it, and what is left of it in seconds.
//!
//! Engines tell the same work in different ways (`core/tests/pulls` has recordings). What they have
//! in common is told here in bytes: each layer is downloaded, and its bytes count once more as they
//! are extracted.

use std::collections::HashMap;
use std::time::Duration;

use super::forecast::{Forecast, Z_P90};
use super::history::{LayerMemory, PullLesson, PullUsual, Shape};
use super::queue::{LayerLeft, seconds_left};
use super::rate::{RateMeter, STALL};
use super::spread::Spread;
use super::{as_f64, as_ms};
use crate::engine::{LayerSize, LayerStep, LayerTelling, PullMessage};
use crate::progress::PullProgress;
use crate::timing::PullTiming;

/// Share of a layer's work that its download is; the rest is extraction.
const DOWNLOAD_SHARE: f64 = 0.7;
/// Layers that Docker downloads at once unless it is told otherwise.
const USUAL_SLOTS: usize = 3;
/// Engines and registries name a layer by the first digits of its digest, this many.
const ID_DIGITS: usize = 12;
/// How much an unknown layer may be smaller or larger than the average of the known ones.
const UNKNOWN_SIZE_FACTOR: f64 = 2.5;
/// Seconds of extraction in this run that say as much as the usual speed does.
const EXTRACTION_TRUST_S: f64 = 1.0;
/// How far from even a line that history does not know may be: the variance of a quarter's time.
const ASSUMED_SHAPE: f64 = 0.0004;
/// No line is known better than this, as a share of its speed.
const CERTAIN: f64 = 0.03;
/// The variance of the logarithm of a speed that is seen for the first time ever: lines are slow to
/// start, and the first moments are chance. It is gone after some seconds.
const UNKNOWN_LINE: f64 = 0.5;
const UNKNOWN_FOR_S: f64 = 1.5;
/// How much more than unrest explains the recent past must differ, to be believed by half.
const SURPRISE: f64 = 4.0;
/// How much of a change is taken to go on, for each time that the past fits into what is left.
const TREND: f64 = 0.6;
/// The most that a trend may add, as a logarithm.
const MOST_TREND: f64 = 0.5;
/// After this many seconds of work that is not told, nobody knows when it ends.
const SILENT_WORK_S: f64 = 30.0;

/// Adds up the layers of one pull.
#[derive(Debug, Clone, Default)]
pub struct PullTracker {
    /// In the order in which they were announced, which is that of the image.
    layers: Vec<Layer>,
    places: HashMap<String, usize>,
    /// How the engine tells of layers.
    telling: LayerTelling,
    /// Whether the image's own list of layers is known.
    knows_manifest: bool,
    /// Sizes that are known although the engine has not told them yet.
    foreseen: HashMap<String, u64>,
    /// Never falls: a layer that is announced late, or starts again, does not move the bar back.
    fraction: f64,
    line: RateMeter,
    /// The most layers that were seen downloading at once.
    slots: usize,
    /// Whether this engine tells how far the extraction is.
    tells_extraction: bool,
    last_moved: Duration,
    /// Seconds without any movement, over all silences that were stalls.
    stalled: Duration,
    first_byte: Option<Duration>,
    all_downloaded: Option<Duration>,
    finished: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Layer {
    id: String,
    /// Bytes to download, once known.
    total: Option<u64>,
    downloaded: u64,
    /// The engine has said that all bytes are there, in a figure that it also shows when a
    /// connection is cut; only its next word on the layer tells which.
    claims_all: bool,
    /// Whether a download of it has failed and begun anew.
    retried: bool,
    /// A download that goes on after that may count the rest only: the bytes before it.
    resumed_from: u64,
    /// Share that is extracted, 0 to 1.
    extracted: f64,
    stage: Stage,
    downloaded_at: Duration,
    done_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Waiting,
    Downloading,
    Downloaded,
    Extracting,
    Done,
    /// It was on the engine before.
    Existing,
}

impl PullTracker {
    /// Returns the tracker of a pull that begins now, on an engine that tells of layers this way.
    #[must_use]
    pub fn new(telling: LayerTelling) -> Self {
        Self {
            telling,
            ..Self::default()
        }
    }

    /// Takes a message that came `at` this time since the pull began. Returns whether it moved
    /// anything, which is what counts as progress.
    pub fn take(&mut self, message: &PullMessage, at: Duration) -> bool {
        let place = self.place_of(&message.layer);
        let is_new = place.is_none();
        if is_new && self.knows_manifest && self.telling == LayerTelling::AsTheyCome {
            // What is no layer of the image is its configuration.
            return false;
        }
        let place = place.unwrap_or_else(|| self.announce(&message.layer));
        let Some(layer) = self.layers.get_mut(place) else {
            return false;
        };
        let before = layer.clone();
        match (message.step, self.telling) {
            // The last word on a layer: its bytes are stored, and extracted unless it is not its turn.
            (LayerStep::Downloaded, LayerTelling::AsTheyCome) => layer.step(LayerStep::Done, at),
            (step, _) => layer.step(step, at),
        }
        let arrived = layer.arrived_since(&before);
        let moved = is_new || layer.differs(&before);
        let stage = layer.stage;
        if let LayerStep::Extracting { .. } = message.step {
            self.tells_extraction = true;
        }
        if stage == Stage::Downloading {
            self.line.begin(at);
        }
        if arrived > 0 {
            self.first_byte.get_or_insert(at);
            self.line.add(at, arrived);
        }
        if moved {
            self.note_movement(at);
        }
        moved
    }

    /// Takes the sizes of layers that are remembered of earlier pulls. What names no layer of this
    /// pull does not matter.
    pub fn remember(&mut self, sizes: impl IntoIterator<Item = LayerSize>) {
        for LayerSize { digest, bytes } in sizes {
            self.foreseen.insert(layer_id(&digest), bytes);
        }
        for layer in &mut self.layers {
            let foreseen = self.foreseen.get(&layer.id).copied();
            layer.total = layer.total.or(foreseen);
        }
        self.fraction = self.fraction.max(self.work_done());
    }

    /// Takes the layers of the image in its own order, as the registry's manifest lists them.
    pub fn learn_manifest(&mut self, layers: Vec<LayerSize>) {
        let ids: Vec<_> = layers.iter().map(|layer| layer_id(&layer.digest)).collect();
        if self
            .layers
            .iter()
            .any(|layer| layer.stage != Stage::Waiting)
            && !self.layers.iter().any(|layer| ids.contains(&layer.id))
        {
            // Another image by the same name: the engine asks elsewhere.
            return;
        }
        self.remember(layers);
        self.knows_manifest = true;
        if self.telling == LayerTelling::AsTheyCome {
            self.layers.retain(|layer| ids.contains(&layer.id));
            let told: Vec<_> = self.layers.iter().map(|layer| layer.id.clone()).collect();
            for id in ids.iter().filter(|id| !told.contains(id)) {
                self.announce(id);
            }
        }
        let place = |id: &String| ids.iter().position(|known| known == id);
        self.layers
            .sort_by_key(|layer| place(&layer.id).unwrap_or(usize::MAX));
        let places = self.layers.iter().enumerate();
        self.places = places
            .map(|(place, layer)| (layer.id.clone(), place))
            .collect();
        self.fraction = self.fraction.max(self.work_done());
    }

    /// Returns whether layers were announced of which nobody has said the size yet, or may be still
    /// to come.
    #[must_use]
    pub fn lacks_sizes(&self) -> bool {
        let may_come = self.telling == LayerTelling::AsTheyCome && self.pulled().next().is_some();
        let is_open = self.finished.is_none() && !self.knows_manifest;
        is_open && (may_come || self.pulled().any(|layer| layer.total.is_none()))
    }

    /// Takes note that the whole pull has succeeded. Engines do not always say so of every layer: the
    /// last words about a small one may be dropped.
    pub fn finish(&mut self, at: Duration) {
        for layer in &mut self.layers {
            if layer.stage < Stage::Done {
                layer.step(LayerStep::Done, at);
            }
        }
        self.note_movement(at);
        self.fraction = 1.0;
        self.finished = Some(at);
    }

    /// Returns the figures as they are `at` this time since the pull began.
    #[must_use]
    pub fn progress(&self, at: Duration) -> PullProgress {
        let extracted = self.pulled().map(|layer| {
            let share = if layer.stage == Stage::Done {
                1.0
            } else {
                layer.extracted
            };
            as_f64(layer.total.unwrap_or(layer.downloaded)) * share
        });
        PullProgress {
            fraction: self.fraction,
            downloaded_bytes: self.pulled().map(Layer::arrived).sum(),
            total_bytes: self.pulled().filter_map(|layer| layer.total).sum(),
            total_is_exact: self.knows_all_layers()
                && self
                    .pulled()
                    .all(|layer| layer.total.is_some() || layer.stage == Stage::Done),
            extracted_bytes: as_u64(extracted.sum()),
            bytes_per_second: self.line.recent(self.finished.unwrap_or(at)).map(as_u64),
            layers_done: count(
                self.pulled()
                    .filter(|layer| layer.stage == Stage::Done)
                    .count(),
            ),
            layers_total: count(self.pulled().count()),
        }
    }

    /// Returns how long nothing has moved.
    #[must_use]
    pub fn idle(&self, at: Duration) -> Duration {
        at.saturating_sub(self.last_moved)
    }

    /// Returns whether silence is no stall: all bytes are there, and the engine never tells of the
    /// extraction that is left.
    #[must_use]
    pub fn works_in_silence(&self) -> bool {
        let has_all = |layer: &Layer| {
            layer.stage > Stage::Downloading
                || layer.total.is_some_and(|total| layer.downloaded >= total)
        };
        !self.tells_extraction && self.pulled().next().is_some() && self.pulled().all(has_all)
    }

    /// Returns the layer that is waited for, as the engine names it.
    #[must_use]
    pub fn waits_for(&self) -> Option<&str> {
        let of = |stage| self.layers.iter().find(|layer| layer.stage == stage);
        of(Stage::Downloading)
            .or_else(|| of(Stage::Extracting))
            .or_else(|| of(Stage::Waiting))
            .map(|layer| layer.id.as_str())
    }

    /// Returns the time left to the end of the pull, or `None` where nothing is known that it could
    /// be worked out from: no line to judge by, here or in history, or no size.
    #[must_use]
    pub fn forecast(&self, at: Duration, usual: &PullUsual) -> Option<Forecast> {
        // Judged as of the last movement: silence is no evidence of a slower line, and has a name of
        // its own when it lasts.
        let heard = self.last_moved.min(at);
        let silence = at.saturating_sub(heard).as_secs_f64();
        if self.layers.is_empty() {
            return self.forecast_unseen(at, usual);
        }
        if self.pulled().next().is_none() || self.pulled().all(|layer| layer.stage == Stage::Done) {
            return Some(Forecast::default());
        }
        if self.works_in_silence() && silence > SILENT_WORK_S {
            return None;
        }
        let average = self.average_left()?;
        let bytes_left: f64 = self.download_left(average, 1.0).iter().sum();
        let judged = if bytes_left > 0.0 {
            Some(self.judge_line(bytes_left, usual)?)
        } else {
            None
        };
        let extraction_deviation = self.extraction_deviation(usual);
        let slots = self.slots.max(USUAL_SLOTS);
        let forecast = Forecast::at_paces(|pace| {
            let extraction = (pace * Z_P90 * extraction_deviation).exp();
            let rate = judged.map_or(1.0, |(level, deviation)| {
                (level - pace * Z_P90 * deviation).exp()
            });
            let sizes = UNKNOWN_SIZE_FACTOR.powf(pace);
            let downloads = self.download_left(average, sizes);
            let extractions = self.extraction_left(heard, usual, &downloads, extraction);
            let layers = downloads.into_iter().zip(extractions);
            let layers: Vec<_> = layers
                .map(|(download, extraction)| LayerLeft {
                    download,
                    extraction,
                })
                .collect();
            seconds_left(&layers, slots, rate)
        });
        Some(self.with_stalls(forecast, usual).after(silence))
    }

    /// Returns what the pull took, so far.
    #[must_use]
    pub fn timing(&self, at: Duration, usual: &PullUsual, joined: bool) -> PullTiming {
        let end = self.finished.unwrap_or(at);
        let first = self.first_byte.unwrap_or(end);
        let downloaded = self.all_downloaded.unwrap_or(end).max(first);
        let bytes: u64 = self.pulled().map(Layer::arrived).sum();
        let usual_rate = usual.line.map(|line| line.level.exp());
        let usual_extraction: f64 = self
            .pulled()
            .map(|layer| usual.extraction_of(&layer.id, layer.total.unwrap_or(layer.downloaded)))
            .sum();
        PullTiming {
            joined,
            layers: count(self.pulled().count()),
            existing_layers: count(self.layers.len() - self.pulled().count()),
            downloaded_bytes: bytes,
            waiting_ms: as_ms(first),
            download_ms: as_ms(downloaded.saturating_sub(first)),
            usual_download_ms: usual_rate
                .filter(|_| bytes > 0)
                .map(|rate| as_u64(as_f64(bytes) / rate * 1e3)),
            extract_ms: as_u64(self.extractions().filter_map(|(_, took)| took).sum::<f64>() * 1e3),
            usual_extract_ms: usual
                .knows_extraction
                .then(|| as_u64(usual_extraction * 1e3)),
            stalled_ms: as_ms(self.stalled),
            bytes_per_second: self.line.mean().map(as_u64),
            usual_bytes_per_second: usual_rate.map(as_u64),
        }
    }

    /// Returns the milliseconds that such a pull usually takes, or `None` when its line is not known.
    #[must_use]
    pub fn usual_ms(&self, usual: &PullUsual) -> Option<u64> {
        let line = usual.line?;
        let layers: Vec<_> = self
            .pulled()
            .map(|layer| {
                let bytes = layer.total.unwrap_or(layer.downloaded);
                LayerLeft {
                    download: as_f64(bytes),
                    extraction: usual.extraction_of(&layer.id, bytes),
                }
            })
            .collect();
        let pull = seconds_left(&layers, self.slots.max(USUAL_SLOTS), line.level.exp());
        let stalls = 1.0 + line.stalled;
        Some(as_ms(usual.waiting.middle()) + as_u64(pull * stalls * 1e3))
    }

    /// Returns what is to be learned from a pull that succeeded.
    #[must_use]
    pub fn lesson(&self) -> PullLesson {
        let span = self.line.span() + self.line.stalled().as_secs_f64();
        PullLesson {
            rate: self.line.mean(),
            shape: self.line.shape(),
            stalled: if span > 0.0 {
                self.line.stalled().as_secs_f64() / span
            } else {
                0.0
            },
            waiting: self.first_byte.map(|first| first.as_secs_f64()),
            layers: self
                .extractions()
                .filter_map(|(layer, took)| {
                    Some(LayerMemory {
                        id: layer.id.clone(),
                        bytes: layer.total?,
                        extraction_s: took,
                    })
                })
                .collect(),
        }
    }

    /// Before the engine has named a layer: what an earlier pull of the image says.
    fn forecast_unseen(&self, at: Duration, usual: &PullUsual) -> Option<Forecast> {
        let line = usual.line?;
        if usual.image.is_empty() {
            return None;
        }
        let waiting = usual.waiting.left_after(at.as_secs_f64())?;
        let layers = |factor: f64| -> Vec<_> {
            let of = |layer: &LayerMemory| LayerLeft {
                download: as_f64(layer.bytes),
                extraction: usual.extraction_of(&layer.id, layer.bytes) * factor,
            };
            usual.image.iter().map(of).collect()
        };
        let (line_deviation, extraction_deviation) =
            (line.variance.sqrt(), self.extraction_deviation(usual));
        let forecast = Forecast::at_paces(|pace| {
            let rate = (line.level - pace * Z_P90 * line_deviation).exp();
            let extraction = (pace * Z_P90 * extraction_deviation).exp();
            seconds_left(&layers(extraction), USUAL_SLOTS, rate)
        });
        Some(waiting.then(self.with_stalls(forecast, usual)))
    }

    /// Returns the logarithm of the speed to come and its standard deviation, from what this pull
    /// shows and what is usual, each weighed by how well it is known.
    fn judge_line(&self, bytes_left: f64, usual: &PullUsual) -> Option<(f64, f64)> {
        let arrived: f64 = self.pulled().map(|layer| as_f64(layer.arrived())).sum();
        let done = arrived / (bytes_left + arrived);
        let (shape, shape_variance) = usual.line.map_or((Shape::EVEN, ASSUMED_SHAPE), |line| {
            (line.shape, line.shape_variance)
        });
        let Some(seen) = self.line.evidence() else {
            let line = usual.line?;
            return Some((line.level, line.variance.sqrt()));
        };
        // The line's speed ahead, behind and of late, each as a multiple of the whole.
        let time = shape.time_of(done).clamp(0.01, 0.99);
        let ahead = (1.0 - done).max(0.001) / (1.0 - time);
        let behind = done.max(0.001) / time;
        let ago = time * (1.0 - (seen.window / seen.span).min(1.0));
        let here = (done - shape.bytes_at(ago)).max(0.001) / (time - ago);
        let by_whole = seen.mean.ln() + (ahead / behind).ln();
        let by_recent = seen.recent.ln() + (ahead / here).ln();
        let surprise = by_recent - by_whole;
        let noise = seen.unrest * (1.0 / seen.window + 1.0 / seen.span) + CERTAIN * CERTAIN;
        let changed = surprise * surprise / (surprise * surprise + SURPRISE * noise);
        let change = changed * surprise;
        let horizon = (bytes_left / (by_whole + change).exp()).max(0.5);
        let trend =
            (TREND * change * (horizon / seen.span).min(2.0)).clamp(-MOST_TREND, MOST_TREND);
        let rests_on = changed * seen.window + (1.0 - changed) * seen.span;
        let seen_level = by_whole + change + trend;
        let unknown = usual.line.map_or(UNKNOWN_LINE, |_| 0.0);
        let seen_variance = seen.unrest / rests_on
            + unknown / (1.0 + (seen.span / UNKNOWN_FOR_S).powi(2))
            + CERTAIN * CERTAIN
            + 4.0 * shape_variance / (time * (1.0 - time)).max(0.05)
            + (0.7 * trend).powi(2)
            + (0.3 * change).powi(2);
        let (level, variance) = match usual.line {
            None => (seen_level, seen_variance),
            Some(line) => {
                let (past, now) = (1.0 / line.variance, 1.0 / seen_variance);
                (
                    ((line.level + ahead.ln()) * past + seen_level * now) / (past + now),
                    1.0 / (past + now),
                )
            }
        };
        Some((level, (variance + seen.unrest / horizon).sqrt()))
    }

    /// Returns the size that a layer of unknown size counts with, which is none where there is no such
    /// layer to download; `None` when it would be needed and no size is known at all.
    fn average_left(&self) -> Option<f64> {
        let is_needed = self
            .layers
            .iter()
            .any(|layer| layer.stage < Stage::Downloaded && layer.total.is_none());
        if is_needed {
            self.average_size()
        } else {
            Some(0.0)
        }
    }

    /// Returns the bytes left of each layer; one of unknown size counts with the average, times
    /// `unknown`.
    fn download_left(&self, average: f64, unknown: f64) -> Vec<f64> {
        self.layers
            .iter()
            .map(|layer| match (layer.stage, layer.total) {
                (Stage::Waiting | Stage::Downloading, Some(total)) => {
                    as_f64(total.saturating_sub(layer.downloaded))
                }
                (Stage::Waiting | Stage::Downloading, None) => {
                    (average * unknown - as_f64(layer.downloaded)).max(0.0)
                }
                (Stage::Downloaded | Stage::Extracting | Stage::Done | Stage::Existing, _) => 0.0,
            })
            .collect()
    }

    /// Returns the seconds of extraction left of each layer.
    fn extraction_left(
        &self,
        at: Duration,
        usual: &PullUsual,
        downloads: &[f64],
        factor: f64,
    ) -> Vec<f64> {
        let scale = self.extraction_scale(usual) * factor;
        // When the layer's turn came, or would have come where the engine does not tell.
        let mut turn = Duration::ZERO;
        let layers = self.layers.iter().zip(downloads);
        layers
            .map(|(layer, download)| {
                let began = turn.max(layer.downloaded_at);
                turn = turn.max(layer.done_at);
                let size = layer
                    .total
                    .unwrap_or_else(|| layer.downloaded.saturating_add(as_u64(*download)));
                let whole = usual.extraction_of(&layer.id, size) * scale;
                match layer.stage {
                    Stage::Done | Stage::Existing => 0.0,
                    Stage::Waiting | Stage::Downloading => whole,
                    Stage::Extracting => {
                        let elapsed = at.saturating_sub(began).as_secs_f64();
                        if layer.extracted > 0.0 {
                            let trust = layer.extracted.sqrt();
                            let by_pace = elapsed / layer.extracted;
                            let whole = trust * by_pace + (1.0 - trust) * whole;
                            whole * (1.0 - layer.extracted)
                        } else {
                            let spread = Spread::new(whole, 2.0);
                            spread.left_after(elapsed).map_or(0.0, |left| left.mid)
                        }
                    }
                    Stage::Downloaded if self.tells_extraction => whole,
                    Stage::Downloaded => {
                        turn = began + Duration::try_from_secs_f64(whole).unwrap_or_default();
                        turn.saturating_sub(began.max(at)).as_secs_f64()
                    }
                }
            })
            .collect()
    }

    /// Returns how much slower than expected this engine extracts in this pull.
    fn extraction_scale(&self, usual: &PullUsual) -> f64 {
        let (mut took, mut expected) = (EXTRACTION_TRUST_S, EXTRACTION_TRUST_S);
        for (layer, seconds) in self.extractions() {
            if let (Some(seconds), Some(total)) = (seconds, layer.total) {
                took += seconds;
                expected += usual.extraction_of(&layer.id, total);
            }
        }
        took / expected
    }

    /// Returns the standard deviation of the logarithm of the extraction's duration.
    fn extraction_deviation(&self, usual: &PullUsual) -> f64 {
        let known = self
            .pulled()
            .filter(|layer| usual.remembers(&layer.id))
            .count();
        if known > 0 && known == self.pulled().count() {
            0.3
        } else if usual.knows_extraction {
            0.4
        } else {
            0.5
        }
    }

    /// Adds the stalls that are to be expected to a forecast without any.
    fn with_stalls(&self, forecast: Forecast, usual: &PullUsual) -> Forecast {
        let stalls = self.stalls_ahead(forecast.mid, usual);
        Forecast {
            low: forecast.low,
            mid: forecast.mid + stalls,
            high: forecast.high + 2.5 * stalls,
        }
    }

    /// Returns the seconds that stalls are expected to take of what is left, when that takes `left`
    /// seconds without them.
    fn stalls_ahead(&self, left: f64, usual: &PullUsual) -> f64 {
        let (span, seen) = (self.line.span(), self.line.stalled().as_secs_f64());
        match usual.line {
            Some(line) => {
                let ratio = 0.5 * line.stalled / (1.0 - line.stalled).max(0.1);
                // Where stalls are usual, those that were seen already are not still to come.
                (ratio * (span + left) - seen).max(0.2 * ratio * left)
            }
            // A stall may have been the only one, and is not expected more than once again.
            None => (0.4 * seen / (span + 1.0) * left).min(seen),
        }
    }

    /// Returns each layer with the seconds of its extraction, once that is over: from its turn, which
    /// comes when it is there and the layer before is done. `None` where the engine does not tell.
    fn extractions(&self) -> impl Iterator<Item = (&Layer, Option<f64>)> {
        let mut turn = Duration::ZERO;
        self.layers.iter().map(move |layer| {
            let began = turn.max(layer.downloaded_at);
            turn = turn.max(layer.done_at);
            let is_told = self.tells_extraction && layer.stage == Stage::Done;
            let took = is_told.then(|| layer.done_at.saturating_sub(began).as_secs_f64());
            (layer, took)
        })
    }

    fn place_of(&self, layer: &str) -> Option<usize> {
        self.places.get(layer).copied()
    }

    fn announce(&mut self, id: &str) -> usize {
        let place = self.layers.len();
        self.places.insert(id.to_owned(), place);
        self.layers.push(Layer {
            id: id.to_owned(),
            total: self.foreseen.get(id).copied(),
            downloaded: 0,
            claims_all: false,
            retried: false,
            resumed_from: 0,
            extracted: 0.0,
            stage: Stage::Waiting,
            downloaded_at: Duration::ZERO,
            done_at: Duration::ZERO,
        });
        place
    }

    fn note_movement(&mut self, at: Duration) {
        let silence = at.saturating_sub(self.last_moved);
        if silence > STALL {
            self.stalled += silence;
        }
        self.last_moved = at;
        self.fraction = self.fraction.max(self.work_done());
        let downloading = self
            .layers
            .iter()
            .filter(|layer| layer.stage == Stage::Downloading)
            .count();
        self.slots = self.slots.max(downloading);
        let all_there = self.pulled().all(|layer| layer.stage > Stage::Downloading);
        if all_there && self.pulled().next().is_some() {
            self.all_downloaded.get_or_insert(at);
        } else {
            self.all_downloaded = None;
        }
    }

    fn knows_all_layers(&self) -> bool {
        match self.telling {
            LayerTelling::AtOnce => !self.layers.is_empty() || self.finished.is_some(),
            LayerTelling::AsTheyCome => self.knows_manifest || self.finished.is_some(),
        }
    }

    fn pulled(&self) -> impl Iterator<Item = &Layer> {
        self.layers
            .iter()
            .filter(|layer| layer.stage != Stage::Existing)
    }

    fn average_size(&self) -> Option<f64> {
        let (mut sum, mut known) = (0.0, 0.0);
        for total in self.pulled().filter_map(|layer| layer.total) {
            sum += as_f64(total);
            known += 1.0;
        }
        (known > 0.0).then(|| sum / known)
    }

    /// Weighs layers by their bytes. One of unknown size counts as an average one: it is work that
    /// is still to come.
    fn work_done(&self) -> f64 {
        let Some(average) = self.average_size() else {
            return 0.0;
        };
        let (mut all, mut done) = (0.0, 0.0);
        for layer in self.pulled() {
            let weight = layer.total.map_or(average, as_f64).max(1.0);
            all += weight;
            done += weight * layer.share_done();
        }
        done / all
    }
}

impl Layer {
    fn step(&mut self, step: LayerStep, at: Duration) {
        match step {
            // What an engine says when it has nothing to say.
            LayerStep::Announced
            | LayerStep::Downloading {
                current: 0,
                total: None,
            } => {}
            LayerStep::Downloading { current, total } => {
                match (total, self.total) {
                    (Some(left), Some(whole)) if self.retried && left < whole => {
                        self.resumed_from = whole - left;
                    }
                    (total, _) => {
                        self.resumed_from = 0;
                        self.learn_total(total);
                    }
                }
                self.claims_all = total.is_some_and(|total| current >= total);
                if !self.claims_all {
                    self.downloaded = self.resumed_from + current;
                }
                self.stage = Stage::Downloading;
            }
            LayerStep::Retrying => {
                // What it has kept, it says when it goes on.
                self.retried = true;
                self.claims_all = false;
                self.stage = Stage::Downloading;
            }
            LayerStep::Downloaded => self.complete_download(at),
            LayerStep::Extracting { current, total } => {
                if self.stage == Stage::Existing {
                    // Its bytes were there, and only they.
                    self.total = Some(0);
                }
                // Docker counts the same compressed bytes again, so a tiny layer that never said
                // "Downloading" says its size here.
                self.learn_total(total);
                self.complete_download(at);
                self.stage = Stage::Extracting;
                if let Some(total) = total {
                    self.extracted = (as_f64(current) / as_f64(total)).min(1.0);
                }
            }
            LayerStep::Done => {
                if self.stage == Stage::Existing {
                    return;
                }
                self.complete_download(at);
                self.extracted = 1.0;
                self.done_at = at;
                self.stage = Stage::Done;
            }
            LayerStep::Existing => self.stage = Stage::Existing,
        }
    }

    /// Returns the bytes that are there. An engine may say a layer's size only when it has it.
    fn arrived(&self) -> u64 {
        match self.total {
            Some(total) if self.stage > Stage::Downloading => total,
            _ => self.downloaded,
        }
    }

    fn complete_download(&mut self, at: Duration) {
        if self.stage < Stage::Downloaded {
            self.stage = Stage::Downloaded;
            self.downloaded_at = at;
            let total = self.total.unwrap_or(self.downloaded);
            self.learn_total(Some(total).filter(|total| *total > 0));
            self.downloaded = total;
        }
    }

    fn learn_total(&mut self, total: Option<u64>) {
        self.total = total.or(self.total);
    }

    /// Returns the bytes that came over the line between two states. A layer that is suddenly there
    /// came from elsewhere: it says nothing of the line.
    fn arrived_since(&self, before: &Self) -> u64 {
        let was_awaited = before.stage == Stage::Downloading || self.stage == Stage::Downloading;
        if was_awaited {
            self.downloaded.saturating_sub(before.downloaded)
        } else {
            0
        }
    }

    fn share_done(&self) -> f64 {
        let downloaded = match self.stage {
            Stage::Downloaded | Stage::Extracting | Stage::Done | Stage::Existing => 1.0,
            Stage::Waiting | Stage::Downloading => self.total.map_or(0.0, |total| {
                (as_f64(self.downloaded) / as_f64(total.max(1))).min(1.0)
            }),
        };
        DOWNLOAD_SHARE * downloaded + (1.0 - DOWNLOAD_SHARE) * self.extracted
    }

    fn differs(&self, other: &Self) -> bool {
        self.downloaded != other.downloaded
            || self.claims_all != other.claims_all
            || self.stage != other.stage
            || (self.extracted - other.extracted).abs() > f64::EPSILON
    }
}

/// Returns a layer's name as engines shorten it.
fn layer_id(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    hex.chars().take(ID_DIGITS).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, and the cast saturates"
)]
fn as_u64(count: f64) -> u64 {
    count.round() as u64
}

fn count(layers: usize) -> u32 {
    u32::try_from(layers).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{History, ImageSource, Lesson, RunKind};

    const MB: u64 = 1_000_000;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn take(tracker: &mut PullTracker, at: u64, layer: &str, step: LayerStep) -> bool {
        let message = PullMessage {
            layer: layer.to_owned(),
            step,
        };
        tracker.take(&message, ms(at))
    }

    fn tracker(steps: &[(u64, &str, LayerStep)]) -> (PullTracker, Vec<f64>) {
        let mut tracker = PullTracker::default();
        let mut fractions = Vec::new();
        for (at, layer, step) in steps {
            take(&mut tracker, *at, layer, *step);
            fractions.push(tracker.progress(ms(*at)).fraction);
        }
        (tracker, fractions)
    }

    fn downloading(current: u64, total: u64) -> LayerStep {
        LayerStep::Downloading {
            current: current * MB,
            total: Some(total * MB),
        }
    }

    fn extracting(current: u64, total: u64) -> LayerStep {
        LayerStep::Extracting {
            current: current * MB,
            total: Some(total * MB),
        }
    }

    fn sizes(sizes: &[(&str, u64)]) -> Vec<LayerSize> {
        let size = |&(digest, megabytes): &(&str, u64)| LayerSize {
            digest: digest.to_owned(),
            bytes: megabytes * MB,
        };
        sizes.iter().map(size).collect()
    }

    fn kind() -> RunKind {
        RunKind {
            engine: "engine".to_owned(),
            registry: "registry".to_owned(),
            image: "image".to_owned(),
            source: ImageSource::Registry,
        }
    }

    /// What is usual after pulls at these megabytes per second.
    fn usual(rates: &[u64]) -> PullUsual {
        let mut history = History::default();
        for rate in rates {
            let pull = PullLesson {
                rate: Some(as_f64(rate * MB)),
                ..PullLesson::default()
            };
            let lesson = Lesson {
                pull: Some(pull),
                ..Lesson::default()
            };
            history.learn(&kind(), lesson);
        }
        history.usual(&kind()).pull.unwrap()
    }

    /// One layer of a hundred megabytes that arrives at ten in a second.
    fn steady(seconds: u64) -> PullTracker {
        let mut tracker = PullTracker::default();
        for tenth in 0..=10 * seconds {
            take(&mut tracker, 100 * tenth, "a", downloading(tenth, 100));
        }
        tracker
    }

    #[test]
    fn layers_weigh_by_their_bytes_and_existing_ones_do_not_count() {
        let (tracker, _) = tracker(&[
            (0, "old", LayerStep::Existing),
            (0, "big", LayerStep::Announced),
            (0, "small", LayerStep::Announced),
            (0, "big", downloading(0, 90)),
            (0, "small", downloading(0, 10)),
            (1_000, "big", downloading(45, 90)),
            (1_000, "small", LayerStep::Done),
        ]);
        let progress = tracker.progress(ms(1_000));
        assert!(
            (progress.fraction - (0.9 * 0.5 * 0.7 + 0.1)).abs() < 1e-9,
            "{progress:?}"
        );
        assert_eq!(
            progress,
            PullProgress {
                fraction: progress.fraction,
                downloaded_bytes: 55 * MB,
                total_bytes: 100 * MB,
                total_is_exact: true,
                extracted_bytes: 10 * MB,
                bytes_per_second: Some(55 * MB),
                layers_done: 1,
                layers_total: 2,
            }
        );
    }

    #[test]
    fn the_total_is_a_lower_bound_until_every_layer_has_said_its_size() {
        let (mut tracker, _) = tracker(&[
            (0, "a", LayerStep::Announced),
            (0, "b", LayerStep::Announced),
            (0, "a", downloading(1, 10)),
        ]);
        let progress = tracker.progress(Duration::ZERO);
        assert_eq!(
            (progress.total_bytes, progress.total_is_exact),
            (10 * MB, false)
        );
        assert!(tracker.lacks_sizes());

        tracker.remember(sizes(&[("sha256:b", 30), ("sha256:elsewhere", 5)]));
        let progress = tracker.progress(Duration::ZERO);
        assert_eq!(
            (progress.total_bytes, progress.total_is_exact),
            (40 * MB, true)
        );
        assert!(!tracker.lacks_sizes());
    }

    #[test]
    fn a_size_that_is_remembered_is_known_before_the_layer_is_announced() {
        let mut tracker = PullTracker::default();
        tracker.remember(sizes(&[("sha256:0123456789abcdef", 30)]));
        take(&mut tracker, 0, "0123456789ab", LayerStep::Announced);
        assert!(!tracker.lacks_sizes());
        assert_eq!(tracker.progress(Duration::ZERO).total_bytes, 30 * MB);
    }

    #[test]
    fn a_layer_that_starts_again_does_not_move_the_bar_back() {
        let (_, fractions) = tracker(&[
            (0, "a", downloading(8, 10)),
            (1, "a", LayerStep::Retrying),
            (2, "a", downloading(1, 10)),
            (3, "b", LayerStep::Announced),
            (4, "a", downloading(9, 10)),
        ]);
        assert!(fractions.is_sorted(), "{fractions:?}");
    }

    #[test]
    fn a_whole_pull_ends_at_one() {
        let (tracker, fractions) = tracker(&[
            (0, "a", LayerStep::Announced),
            (0, "tiny", LayerStep::Announced),
            (1, "tiny", LayerStep::Downloaded),
            (2, "a", downloading(10, 10)),
            (3, "a", LayerStep::Downloaded),
            (4, "a", extracting(5, 10)),
            (5, "a", LayerStep::Done),
            (
                6,
                "tiny",
                LayerStep::Extracting {
                    current: 32,
                    total: Some(32),
                },
            ),
            (7, "tiny", LayerStep::Done),
        ]);
        assert!(fractions.is_sorted());
        let progress = tracker.progress(ms(7));
        assert!((progress.fraction - 1.0).abs() < 1e-9, "{progress:?}");
        assert!(progress.total_is_exact);
        assert_eq!(progress.layers_done, 2);
        assert_eq!(progress.extracted_bytes, progress.total_bytes);
    }

    #[test]
    fn a_pull_that_succeeded_is_whole_whatever_was_left_unsaid() {
        let (mut tracker, _) = tracker(&[
            (0, "a", downloading(3, 10)),
            (0, "tiny", LayerStep::Announced),
            (0, "old", LayerStep::Existing),
        ]);
        tracker.finish(ms(1_000));
        let progress = tracker.progress(ms(1_000));
        assert!((progress.fraction - 1.0).abs() < f64::EPSILON);
        assert!(progress.total_is_exact);
        assert_eq!((progress.layers_done, progress.layers_total), (2, 2));
        assert_eq!(progress.downloaded_bytes, 10 * MB);
        let left = tracker.forecast(ms(1_000), &usual(&[])).unwrap();
        assert_eq!(left, Forecast::default());
    }

    #[test]
    fn a_message_that_says_nothing_new_is_no_progress() {
        let mut tracker = PullTracker::default();
        assert!(take(&mut tracker, 0, "a", downloading(1, 2)));
        assert!(!take(&mut tracker, 5_000, "a", downloading(1, 2)));
        assert_eq!(tracker.idle(ms(7_000)), ms(7_000));
        assert!(take(&mut tracker, 8_000, "a", downloading(2, 2)));
        assert_eq!(tracker.idle(ms(8_500)), ms(500));
    }

    #[test]
    fn there_is_no_forecast_before_there_is_evidence() {
        let mut tracker = PullTracker::default();
        assert_eq!(tracker.forecast(ms(100), &usual(&[])), None);
        take(&mut tracker, 0, "a", LayerStep::Announced);
        assert_eq!(tracker.forecast(ms(100), &usual(&[])), None);
        take(&mut tracker, 200, "a", downloading(1, 100));
        assert_eq!(tracker.forecast(ms(200), &usual(&[])), None);
    }

    #[test]
    fn a_steady_line_is_forecast_well_without_any_history() {
        let left = steady(4).forecast(ms(4_000), &usual(&[])).unwrap();
        // Sixty megabytes at ten a second, then the extraction.
        assert!((6.5..9.5).contains(&left.mid), "{left:?}");
        assert!(left.low < left.mid && left.mid < left.high, "{left:?}");
    }

    #[test]
    fn history_knows_the_line_before_the_first_byte_and_yields_to_what_is_seen() {
        let usual = usual(&[20, 20, 20]);
        let mut fresh = PullTracker::default();
        fresh.remember(sizes(&[("a", 100)]));
        take(&mut fresh, 0, "a", LayerStep::Announced);
        let left = fresh.forecast(ms(0), &usual).unwrap();
        assert!((5.0..8.0).contains(&left.mid), "{left:?}");

        // Today the line is half as fast.
        let left = steady(6).forecast(ms(6_000), &usual).unwrap();
        assert!((3.7..6.5).contains(&left.mid), "{left:?}");
    }

    #[test]
    fn silence_ticks_the_forecast_down_instead_of_inflating_it() {
        let tracker = steady(4);
        let usual = usual(&[]);
        let heard = tracker.forecast(ms(4_000), &usual).unwrap();
        let later = tracker.forecast(ms(6_000), &usual).unwrap();
        assert!(
            (heard.mid - later.mid - 2.0).abs() < 1e-9,
            "{heard:?} {later:?}"
        );
    }

    #[test]
    fn extraction_that_is_told_in_seconds_counts_too() {
        let (tracker, _) = tracker(&[
            (0, "a", LayerStep::Announced),
            (1_000, "a", downloading(60, 60)),
            (1_100, "a", LayerStep::Downloaded),
            (
                1_200,
                "a",
                LayerStep::Extracting {
                    current: 1,
                    total: None,
                },
            ),
        ]);
        let left = tracker.forecast(ms(1_200), &usual(&[])).unwrap();
        assert!((0.5..2.0).contains(&left.mid), "{left:?}");
        assert_eq!(tracker.progress(ms(1_200)).total_bytes, 60 * MB);
    }

    #[test]
    fn extraction_that_is_not_told_is_expected_all_the_same() {
        let (tracker, _) = tracker(&[
            (0, "a", LayerStep::Announced),
            (1_000, "a", downloading(60, 60)),
            (1_100, "a", LayerStep::Downloaded),
        ]);
        let left = |at| tracker.forecast(ms(at), &usual(&[])).unwrap().mid;
        assert!((0.5..2.0).contains(&left(1_100)), "{}", left(1_100));
        assert!(left(1_500) < left(1_100));
        assert!(left(9_000) < 0.1);
    }

    #[test]
    fn the_layer_that_is_waited_for_has_a_name() {
        let (mut tracker, _) = tracker(&[
            (0, "a", LayerStep::Announced),
            (0, "b", LayerStep::Announced),
        ]);
        assert_eq!(tracker.waits_for(), Some("a"));
        take(&mut tracker, 1, "b", downloading(1, 2));
        assert_eq!(tracker.waits_for(), Some("b"));
    }

    #[test]
    fn a_pull_teaches_its_line_and_its_layers() {
        let mut tracker = steady(10);
        take(&mut tracker, 10_000, "a", LayerStep::Downloaded);
        take(&mut tracker, 10_000, "a", extracting(1, 100));
        take(&mut tracker, 12_000, "a", LayerStep::Done);
        let lesson = tracker.lesson();
        assert!((lesson.rate.unwrap() - 10e6).abs() < 0.2e6, "{lesson:?}");
        assert!(lesson.shape.is_some(), "{lesson:?}");
        let memory = LayerMemory {
            id: "a".to_owned(),
            bytes: 100 * MB,
            extraction_s: Some(2.0),
        };
        assert_eq!(lesson.layers, [memory]);
    }

    #[test]
    fn the_report_tells_download_extraction_and_stalls_apart() {
        let mut tracker = PullTracker::default();
        take(&mut tracker, 0, "a", LayerStep::Announced);
        for second in 1..=5 {
            take(
                &mut tracker,
                second * 1_000,
                "a",
                downloading(second * 10, 100),
            );
        }
        take(&mut tracker, 15_000, "a", downloading(100, 100));
        take(&mut tracker, 15_000, "a", LayerStep::Downloaded);
        take(&mut tracker, 15_000, "a", extracting(1, 100));
        take(&mut tracker, 18_000, "a", LayerStep::Done);
        let timing = tracker.timing(ms(18_000), &usual(&[10]), false);
        assert_eq!(
            timing,
            PullTiming {
                joined: false,
                layers: 1,
                existing_layers: 0,
                downloaded_bytes: 100 * MB,
                waiting_ms: 1_000,
                download_ms: 14_000,
                usual_download_ms: Some(10_000),
                extract_ms: 3_000,
                usual_extract_ms: None,
                stalled_ms: 10_000,
                bytes_per_second: timing.bytes_per_second,
                usual_bytes_per_second: Some(10 * MB),
            }
        );
    }
}
