//! A pull, layer by layer, counted: one number for all of it.
//!
//! Engines describe the same work in different dialects (`core/tests/pulls` has recordings). What they have
//! in common is counted here in bytes: each layer is downloaded, and its bytes count once more as they
//! are extracted. How long the rest will take is worked out in `time_left`.

mod layer;
mod time_left;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use self::layer::{Layer, Stage, layer_id};
use super::history::{LayerMemory, PullSample, PullUsual};
use super::line;
use super::rate::{RateMeter, STALL};
use super::{as_f64, as_ms};
use crate::layer::{LAYER_LIMIT, LayerSize, LayerStep, PullDialect, PullMessage};
use crate::progress::PullProgress;
use crate::timing::PullTiming;

/// Adds up the layers of one pull.
#[derive(Debug, Clone, Default)]
pub struct PullTracker {
    /// In the order in which they were announced, which is that of the image.
    layers: Vec<Layer>,
    places: HashMap<String, usize>,
    /// How the engine describes layers.
    dialect: PullDialect,
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

impl PullTracker {
    /// Returns the tracker of a pull that begins now, on an engine that describes layers this way.
    #[must_use]
    pub fn new(dialect: PullDialect) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
    }

    /// Takes a message that came `at` this time since the pull began. Returns whether it moved
    /// anything, which is what counts as progress.
    pub fn take(&mut self, message: &PullMessage, at: Duration) -> bool {
        let place = self.place_of(&message.layer);
        let is_new = place.is_none();
        if is_new && self.knows_manifest && self.dialect == PullDialect::AsTheyCome {
            // What is no layer of the image is its configuration.
            return false;
        }
        if is_new && self.layers.len() >= LAYER_LIMIT {
            return false;
        }
        let place = place.unwrap_or_else(|| self.announce(&message.layer));
        let Some(layer) = self.layers.get_mut(place) else {
            return false;
        };
        let before = layer.clone();
        match (message.step, self.dialect) {
            // The last word on a layer: its bytes are stored, and extracted unless it is not its turn.
            (LayerStep::Downloaded, PullDialect::AsTheyCome) => layer.step(LayerStep::Done, at),
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
        let ids: Vec<_> = layers
            .iter()
            .take(LAYER_LIMIT)
            .map(|layer| layer_id(&layer.digest))
            .collect();
        let mut order = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            // A layer may be listed twice; its first place counts.
            order.entry(id.as_str()).or_insert(place);
        }
        if self
            .layers
            .iter()
            .any(|layer| layer.stage != Stage::Waiting)
            && !self
                .layers
                .iter()
                .any(|layer| order.contains_key(layer.id.as_str()))
        {
            // Another image by the same name: the engine asks elsewhere.
            return;
        }
        self.remember(layers);
        self.knows_manifest = true;
        if self.dialect == PullDialect::AsTheyCome {
            self.layers
                .retain(|layer| order.contains_key(layer.id.as_str()));
            let told = self.layers.iter().map(|layer| layer.id.clone());
            let mut told: HashSet<String> = told.collect();
            for id in &ids {
                if told.insert(id.clone()) {
                    self.announce(id);
                }
            }
        }
        self.layers.sort_by_key(|layer| {
            let place = order.get(layer.id.as_str()).copied();
            place.unwrap_or(usize::MAX)
        });
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
        let may_come = self.dialect == PullDialect::AsTheyCome && self.pulled().next().is_some();
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

    /// Returns what the pull took, so far.
    #[must_use]
    pub fn timing(&self, at: Duration, usual: &PullUsual, joined: bool) -> PullTiming {
        let end = self.finished.unwrap_or(at);
        let first = self.first_byte.unwrap_or(end);
        let downloaded = self.all_downloaded.unwrap_or(end).max(first);
        let bytes: u64 = self.pulled().map(Layer::arrived).sum();
        let usual_rate = usual.line.as_ref().map(|line| line.speed.quantile(0.0));
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

    /// Returns the sample that a pull which succeeded adds to the history.
    #[must_use]
    pub fn sample(&self) -> PullSample {
        PullSample {
            rate: self.line.mean(),
            shape: self.line.shape(),
            fit: self.line.past().as_ref().and_then(line::fit),
            stalls: self.line.stalls(),
            stalled_s: self.line.stalled().as_secs_f64(),
            moved_s: self.line.span(),
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
        let size = self.foreseen.get(id).copied();
        self.layers.push(Layer::announced(id, size));
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
        match self.dialect {
            PullDialect::AtOnce => !self.layers.is_empty() || self.finished.is_some(),
            PullDialect::AsTheyCome => self.knows_manifest || self.finished.is_some(),
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
mod tests;
