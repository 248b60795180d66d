//! What is left of a pull in seconds, forecast from what it has shown and from what is usual.
//!
//! The speed to come is judged in `line`, the stalls to come in `stalls`; the engine's queue is played
//! forward in `queue`. What comes out are three quantiles, P10, P50 and P90, as wide as `calibration` says that
//! they must be.

use std::time::Duration;

use super::layer::Stage;
use super::{PullTracker, as_u64};
use crate::estimate::calibration::{Cell, Unrest};
use crate::estimate::forecast::{Forecast, LogNormal, Z_P90};
use crate::estimate::history::{LayerMemory, PullUsual};
use crate::estimate::line::{self, Mixture};
use crate::estimate::queue::{LayerLeft, seconds_left};
use crate::estimate::spread::Spread;
use crate::estimate::stalls::KNOTS;
use crate::estimate::{as_f64, as_ms};

/// Layers that Docker downloads at once unless it is told otherwise.
const USUAL_SLOTS: usize = 3;
/// How much an unknown layer may be smaller or larger than the average of the known ones.
const UNKNOWN_SIZE_FACTOR: f64 = 2.5;
/// After this many seconds of work that is not told, nobody knows when it ends.
const SILENT_WORK_S: f64 = 30.0;

/// The standard deviations of the logarithm of an extraction's duration, of all layers together and of each beside that:
/// where each layer was extracted before, where this engine was seen extracting, and where it never was.
const KNOWN_LAYERS: (f64, f64) = (0.2, 0.2);
const KNOWN_ENGINE: (f64, f64) = (0.3, 0.5);
const UNKNOWN_ENGINE: (f64, f64) = (0.5, 0.5);
/// How exactly the begin and the end of an extraction are known, and the least that it is taken for, in seconds.
const EXTRACTION_TIMING_S: f64 = 0.1;
const LEAST_EXTRACTION_S: f64 = 0.02;
/// P90 of one layer's extraction, as a multiple of its middle.
const EXTRACTION_FACTOR: f64 = 2.0;

impl PullTracker {
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
        let speed = if bytes_left > 0.0 {
            Some(self.speed_ahead(bytes_left, usual)?)
        } else {
            None
        };
        let extraction_time = self.extraction_factor(usual);
        let slots = self.slots.max(USUAL_SLOTS);
        let seconds = KNOTS.map(|z| {
            let rate = speed.as_ref().map_or(1.0, |speed| speed.quantile(-z));
            let sizes = UNKNOWN_SIZE_FACTOR.powf(z / Z_P90);
            let downloads = self.download_left(average, sizes);
            let extractions =
                self.extraction_left(heard, usual, &downloads, extraction_time.quantile(z));
            let layers = downloads.into_iter().zip(extractions);
            let layers: Vec<_> = layers
                .map(|(download, extraction)| LayerLeft {
                    download,
                    extraction,
                })
                .collect();
            seconds_left(&layers, slots, rate)
        });
        let cell = self.cell_at(speed.as_ref(), usual);
        let moving = speed.map_or(0.0, |speed| bytes_left / speed.quantile(0.0));
        let forecast = self.with_stalls(seconds, moving, usual).after(silence);
        Some(forecast.widened(cell.factors()))
    }

    /// Returns what the width of the forecast's bounds depends on.
    #[must_use]
    pub fn cell(&self, usual: &PullUsual) -> Cell {
        let left = self.download_left(self.average_left().unwrap_or_default(), 1.0);
        let speed = self.speed_ahead(left.iter().sum(), usual);
        self.cell_at(speed.as_ref(), usual)
    }

    fn cell_at(&self, speed: Option<&Mixture>, usual: &PullUsual) -> Cell {
        let had_stalled = usual.line.as_ref().map(|line| line.stalls.were_seen());
        let unrest = if self.line.stalls() > 0 || had_stalled.unwrap_or_default() {
            Unrest::Stalling
        } else if speed.is_some_and(|speed| speed.is_restless) {
            Unrest::Restless
        } else {
            Unrest::Calm
        };
        Cell {
            is_known: usual.line.is_some(),
            unrest,
            third: Cell::third_of(self.fraction),
        }
    }

    /// Returns the milliseconds that such a pull usually takes, or `None` when its line is not known.
    #[must_use]
    pub fn usual_ms(&self, usual: &PullUsual) -> Option<u64> {
        let line = usual.line.as_ref()?;
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
        let rate = line.speed.quantile(0.0);
        let pull = seconds_left(&layers, self.slots.max(USUAL_SLOTS), rate);
        let stalls = 1.0 + line.stalled;
        Some(as_ms(usual.waiting.middle()) + as_u64(pull * stalls * 1e3))
    }

    /// Forecasts a pull of which the engine has named no layer yet, by what an earlier pull of the image says.
    fn forecast_unseen(&self, at: Duration, usual: &PullUsual) -> Option<Forecast> {
        let line = usual.line.as_ref()?;
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
        let extraction_time = self.extraction_factor(usual);
        let seconds = KNOTS.map(|z| {
            let rate = line.speed.quantile(-z);
            seconds_left(&layers(extraction_time.quantile(z)), USUAL_SLOTS, rate)
        });
        let bytes: f64 = usual.image.iter().map(|layer| as_f64(layer.bytes)).sum();
        let moving = bytes / line.speed.quantile(0.0);
        Some(waiting.then(self.with_stalls(seconds, moving, usual)))
    }

    /// Returns the speed to come in bytes per second, from what this pull shows and what is usual.
    fn speed_ahead(&self, bytes_left: f64, usual: &PullUsual) -> Option<Mixture> {
        let arrived: f64 = self.pulled().map(|layer| as_f64(layer.arrived())).sum();
        let done = arrived / (bytes_left + arrived);
        let past = self.line.past();
        line::speed_ahead(past.as_ref(), bytes_left, done, usual.line.as_ref())
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
                let whole = usual.extraction_of(&layer.id, size) * factor;
                match layer.stage {
                    Stage::Done | Stage::Existing => 0.0,
                    Stage::Waiting | Stage::Downloading => whole,
                    Stage::Extracting => {
                        let elapsed = at.saturating_sub(began).as_secs_f64();
                        if layer.extracted > 0.0 {
                            // The further it is, the more its own speed counts.
                            let weight = layer.extracted.sqrt();
                            let by_its_speed = elapsed / layer.extracted;
                            let whole = weight * by_its_speed + (1.0 - weight) * whole;
                            whole * (1.0 - layer.extracted)
                        } else {
                            let spread = Spread::new(whole, EXTRACTION_FACTOR);
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

    /// Returns how long the extraction that is left takes, as a multiple of what is expected: by what this pull
    /// shows, and by what is known of its layers and its engine. The logarithms of both are taken to be normal.
    fn extraction_factor(&self, usual: &PullUsual) -> LogNormal {
        let (mut known, mut all) = (0.0, 0.0);
        // The seconds that are left, and their squares: few large layers vary by more than many small ones.
        let (mut left, mut squares) = (0.0, 0.0);
        for layer in self.pulled() {
            all += 1.0;
            known += f64::from(u8::from(usual.remembers(&layer.id)));
            if layer.stage < Stage::Extracting {
                let expected = usual.extraction_of(&layer.id, layer.total.unwrap_or_default());
                left += expected;
                squares += expected * expected;
            }
        }
        let (engine, layer) = if known > 0.0 && known >= all {
            KNOWN_LAYERS
        } else if usual.knows_extraction {
            KNOWN_ENGINE
        } else {
            UNKNOWN_ENGINE
        };
        let mut judged = LogNormal {
            mean: 0.0,
            variance: engine * engine,
        };
        for (seen, seconds) in self.extractions() {
            if let (Some(seconds), Some(total)) = (seconds, seen.total) {
                let seconds = seconds.max(LEAST_EXTRACTION_S);
                let expected = usual.extraction_of(&seen.id, total);
                judged = judged.combined_with(LogNormal {
                    mean: (seconds / expected).ln(),
                    variance: layer * layer + (EXTRACTION_TIMING_S / seconds).powi(2),
                });
            }
        }
        LogNormal {
            variance: judged.variance + layer * layer * squares / (left * left).max(1e-9),
            ..judged
        }
    }

    /// Adds the stalls that are to be expected to a duration without any, while bytes move for some seconds.
    fn with_stalls(&self, seconds: [f64; 9], moving: f64, usual: &PullUsual) -> Forecast {
        let before = usual.line.as_ref().map(|line| line.stalls);
        let (count, stalled) = (self.line.stalls(), self.line.stalled().as_secs_f64());
        let seen = before
            .unwrap_or_default()
            .with(count, stalled, self.line.span());
        seen.added_to(seconds, moving)
    }
}
