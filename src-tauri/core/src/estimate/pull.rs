//! One number for a pull: bytes over all layers, download and extraction together.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::engine::{LayerStep, PullMessage};
use crate::progress::PullProgress;

/// Share of a layer's work that its download is; the rest is extraction.
const DOWNLOAD_SHARE: f64 = 0.7;
/// The download rate is taken over this much of the recent past.
const RATE_WINDOW: Duration = Duration::from_secs(4);
/// Below this span a rate would be noise.
const RATE_MIN_SPAN: Duration = Duration::from_millis(500);

/// Adds up the layers of one pull.
#[derive(Debug, Clone, Default)]
pub struct PullTracker {
    layers: BTreeMap<String, Layer>,
    /// Never falls: a layer that is announced late, or starts again, does not move the bar back.
    fraction: f64,
    /// When how many bytes had been downloaded.
    samples: VecDeque<(Duration, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    /// Bytes to download, once known.
    total: Option<u64>,
    downloaded: u64,
    /// Share that is extracted, 0 to 1.
    extracted: f64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Downloading,
    Extracting,
    Done,
    Existing,
}

impl PullTracker {
    /// Takes a message that came `at` this time since the pull began. Returns whether it moved
    /// anything, which is what counts as progress.
    pub fn take(&mut self, message: &PullMessage, at: Duration) -> bool {
        let known = self.layers.contains_key(&message.layer);
        let layer = self.layers.entry(message.layer.clone()).or_default();
        let before = *layer;
        layer.step(message.step);
        let moved = !known || layer.differs(&before);
        self.fraction = self.fraction.max(self.work_done());
        let downloaded = self.downloaded();
        self.samples.push_back((at, downloaded));
        while self
            .samples
            .get(1)
            .is_some_and(|(second, _)| at.saturating_sub(*second) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        moved
    }

    /// Takes note that the whole pull has succeeded. Engines do not always say so of every layer: the
    /// last words about a small one may be dropped.
    pub fn finish(&mut self) {
        for layer in self.layers.values_mut() {
            if layer.stage != Stage::Existing {
                layer.step(LayerStep::Done);
            }
        }
        self.fraction = 1.0;
    }

    /// Returns the figures as they are `at` this time since the pull began.
    #[must_use]
    pub fn progress(&self, at: Duration) -> PullProgress {
        let pulled = || {
            self.layers
                .values()
                .filter(|layer| layer.stage != Stage::Existing)
        };
        let total_bytes = pulled().filter_map(|layer| layer.total).sum();
        PullProgress {
            fraction: self.fraction,
            downloaded_bytes: self.downloaded(),
            total_bytes,
            total_is_exact: pulled()
                .all(|layer| layer.total.is_some() || layer.stage == Stage::Done),
            bytes_per_second: self.rate(at),
            layers_done: count(pulled().filter(|layer| layer.stage == Stage::Done).count()),
            layers_total: count(pulled().count()),
        }
    }

    fn downloaded(&self) -> u64 {
        let pulled = self
            .layers
            .values()
            .filter(|layer| layer.stage != Stage::Existing);
        pulled.map(|layer| layer.downloaded).sum()
    }

    /// Weighs layers by their bytes. One of unknown size counts as an average one: it is work that
    /// is still to come.
    fn work_done(&self) -> f64 {
        let pulled: Vec<_> = self
            .layers
            .values()
            .filter(|layer| layer.stage != Stage::Existing)
            .collect();
        let sizes: Vec<f64> = pulled
            .iter()
            .filter_map(|layer| layer.total)
            .map(as_f64)
            .collect();
        if sizes.is_empty() {
            return 0.0;
        }
        let average = sizes.iter().sum::<f64>() / as_f64(sizes.len() as u64);
        let weigh = |layer: &Layer| layer.total.map_or(average, as_f64).max(1.0);
        let all: f64 = pulled.iter().map(|layer| weigh(layer)).sum();
        let done: f64 = pulled
            .iter()
            .map(|layer| weigh(layer) * layer.share_done())
            .sum();
        done / all
    }

    fn rate(&self, at: Duration) -> Option<u64> {
        let (first_at, first) = *self.samples.front()?;
        let span = at.saturating_sub(first_at);
        if span < RATE_MIN_SPAN {
            return None;
        }
        let bytes = self.downloaded().saturating_sub(first);
        u64::try_from(u128::from(bytes) * 1_000 / span.as_millis()).ok()
    }
}

impl Layer {
    fn step(&mut self, step: LayerStep) {
        match step {
            LayerStep::Announced => {}
            LayerStep::Downloading { current, total } => {
                self.learn_total(total);
                self.downloaded = current;
            }
            LayerStep::Retrying => self.downloaded = 0,
            LayerStep::Downloaded => {
                self.downloaded = self.total.unwrap_or(self.downloaded);
                self.learn_total(self.downloaded);
                self.stage = Stage::Extracting;
            }
            LayerStep::Extracting { current, total } => {
                // The engine counts the same compressed bytes again, so a tiny layer that never
                // said "Downloading" says its size here.
                self.learn_total(total);
                self.downloaded = self.total.unwrap_or(self.downloaded);
                self.stage = Stage::Extracting;
                if total > 0 {
                    self.extracted = (as_f64(current) / as_f64(total)).min(1.0);
                }
            }
            LayerStep::Done => {
                self.downloaded = self.total.unwrap_or(self.downloaded);
                self.learn_total(self.downloaded);
                self.extracted = 1.0;
                self.stage = Stage::Done;
            }
            LayerStep::Existing => self.stage = Stage::Existing,
        }
    }

    fn learn_total(&mut self, total: u64) {
        if total > 0 {
            self.total = Some(total);
        }
    }

    fn share_done(&self) -> f64 {
        let downloaded = match self.stage {
            Stage::Extracting | Stage::Done | Stage::Existing => 1.0,
            Stage::Downloading => self.total.map_or(0.0, |total| {
                (as_f64(self.downloaded) / as_f64(total)).min(1.0)
            }),
        };
        DOWNLOAD_SHARE * downloaded + (1.0 - DOWNLOAD_SHARE) * self.extracted
    }

    fn differs(&self, other: &Self) -> bool {
        self.downloaded != other.downloaded
            || self.stage != other.stage
            || (self.extracted - other.extracted).abs() > f64::EPSILON
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of bytes needs no more than 53 bits"
)]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

fn count(layers: usize) -> u32 {
    u32::try_from(layers).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn tracker(steps: &[(u64, &str, LayerStep)]) -> (PullTracker, Vec<f64>) {
        let mut tracker = PullTracker::default();
        let mut fractions = Vec::new();
        for (ms, layer, step) in steps {
            let message = PullMessage {
                layer: (*layer).to_owned(),
                step: *step,
            };
            tracker.take(&message, Duration::from_millis(*ms));
            fractions.push(tracker.progress(Duration::from_millis(*ms)).fraction);
        }
        (tracker, fractions)
    }

    fn downloading(current: u64, total: u64) -> LayerStep {
        LayerStep::Downloading {
            current: current * MB,
            total: total * MB,
        }
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
        let progress = tracker.progress(Duration::from_secs(1));
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
                bytes_per_second: Some(55 * MB),
                layers_done: 1,
                layers_total: 2,
            }
        );
    }

    #[test]
    fn the_total_is_a_lower_bound_until_every_layer_has_said_its_size() {
        let (tracker, _) = tracker(&[
            (0, "a", LayerStep::Announced),
            (0, "b", LayerStep::Announced),
            (0, "a", downloading(1, 10)),
        ]);
        let progress = tracker.progress(Duration::ZERO);
        assert!(!progress.total_is_exact);
        assert_eq!(progress.total_bytes, 10 * MB);
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
            (
                4,
                "a",
                LayerStep::Extracting {
                    current: 5 * MB,
                    total: 10 * MB,
                },
            ),
            (5, "a", LayerStep::Done),
            (
                6,
                "tiny",
                LayerStep::Extracting {
                    current: 32,
                    total: 32,
                },
            ),
            (7, "tiny", LayerStep::Done),
        ]);
        assert!(fractions.is_sorted());
        let progress = tracker.progress(Duration::from_millis(7));
        assert!((progress.fraction - 1.0).abs() < 1e-9, "{progress:?}");
        assert!(progress.total_is_exact);
        assert_eq!(progress.layers_done, 2);
    }

    #[test]
    fn a_pull_that_succeeded_is_whole_whatever_was_left_unsaid() {
        let (mut tracker, _) = tracker(&[
            (0, "a", downloading(3, 10)),
            (0, "tiny", LayerStep::Announced),
            (0, "old", LayerStep::Existing),
        ]);
        tracker.finish();
        let progress = tracker.progress(Duration::from_secs(1));
        assert!((progress.fraction - 1.0).abs() < f64::EPSILON);
        assert!(progress.total_is_exact);
        assert_eq!((progress.layers_done, progress.layers_total), (2, 2));
        assert_eq!(progress.downloaded_bytes, 10 * MB);
    }

    #[test]
    fn a_message_that_says_nothing_new_is_no_progress() {
        let mut tracker = PullTracker::default();
        let message = PullMessage {
            layer: "a".into(),
            step: downloading(1, 2),
        };
        assert!(tracker.take(&message, Duration::ZERO));
        assert!(!tracker.take(&message, Duration::ZERO));
    }
}
