//! What is left of a pull in seconds, forecast from what it has shown and from what is usual.
//!
//! A line's speed is taken to be log-normal: it is judged by the mean and the variance of its natural
//! logarithm, in which "twice as fast" and "half as fast" are equally far. Two judgements of the same
//! speed are combined by inverse-variance weighting. What comes out are three quantiles, P10, P50 and P90.

use std::time::Duration;

use super::layer::Stage;
use super::{PullTracker, as_u64};
use crate::estimate::forecast::{Forecast, LogNormal, Z_P90};
use crate::estimate::history::{LayerMemory, PullUsual, Shape};
use crate::estimate::queue::{LayerLeft, seconds_left};
use crate::estimate::rate::Evidence;
use crate::estimate::spread::Spread;
use crate::estimate::{as_f64, as_ms};

/// Layers that Docker downloads at once unless it is told otherwise.
const USUAL_SLOTS: usize = 3;
/// How much an unknown layer may be smaller or larger than the average of the known ones.
const UNKNOWN_SIZE_FACTOR: f64 = 2.5;
/// After this many seconds of work that is not told, nobody knows when it ends.
const SILENT_WORK_S: f64 = 30.0;

/// How far from even a line that history does not know may be: the variance of a quarter's time.
const ASSUMED_SHAPE_VARIANCE: f64 = 0.0004;
/// How much the variance of a quarter's time adds to that of the speed, at the middle of a pull.
const SHAPE_WEIGHT: f64 = 4.0;
/// At the ends of a pull its shape says little; `time × (1 − time)` counts as at least this.
const LEAST_SHAPE_TIME: f64 = 0.05;
/// No line is known better than this, as a standard deviation of the logarithm of its speed.
const CERTAIN: f64 = 0.03;
/// The variance of the logarithm of a speed that is seen for the first time ever: lines are slow to
/// start, and the first moments are chance. It is gone after some seconds.
const UNKNOWN_LINE_VARIANCE: f64 = 0.5;
const UNKNOWN_FOR_S: f64 = 1.5;
/// How many times the variance of the jitter a change's square must be, to be believed by half.
const HALF_BELIEVED: f64 = 4.0;
/// How much of a change is taken to go on, for each time that the past fits into what is left.
const TREND: f64 = 0.6;
/// For at most this many times.
const MOST_TREND_TIMES: f64 = 2.0;
/// The most that a trend may add, as a logarithm.
const MOST_TREND: f64 = 0.5;
/// The standard deviation of a trend and of a change, each as a share of itself.
const TREND_DEVIATION: f64 = 0.7;
const CHANGE_DEVIATION: f64 = 0.3;
/// What is left of a download takes at least this many seconds, for the purpose of its jitter.
const LEAST_HORIZON_S: f64 = 0.5;
/// Shares of a pull's time and bytes are kept this far from their ends, where speeds have no bounds.
const LEAST_SHARE_OF_TIME: f64 = 0.01;
const LEAST_SHARE_OF_BYTES: f64 = 0.001;

/// Seconds of extraction in this run that say as much as the usual speed does.
const EXTRACTION_PRIOR_S: f64 = 1.0;
/// The standard deviation of the logarithm of an extraction's duration: where each layer was extracted
/// before, where this engine was seen extracting, and where it never was.
const KNOWN_LAYERS_DEVIATION: f64 = 0.3;
const KNOWN_ENGINE_DEVIATION: f64 = 0.4;
const UNKNOWN_EXTRACTION_DEVIATION: f64 = 0.5;
/// P90 of one layer's extraction, as a multiple of its middle.
const EXTRACTION_FACTOR: f64 = 2.0;

/// How much of the stalls that are usual for a line is expected of a pull: they come seldom and are long, so
/// most pulls see fewer than the average.
const EXPECTED_STALLS: f64 = 0.5;
/// At least this share of those is still expected, however many were seen already.
const LEAST_STALLS_AHEAD: f64 = 0.2;
/// How much of a pull's own stalls so far is expected to come again, where nothing is known of the line.
const REPEATED_STALLS: f64 = 0.4;
/// P90 of the time that stalls take, as a multiple of what is expected.
const STALLS_P90_FACTOR: f64 = 2.5;
/// A line moves for at least this share of its time, whatever history says.
const LEAST_MOVING: f64 = 0.1;

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
        let forecast = Forecast::by_quantile(|z| {
            let rate = speed.map_or(1.0, |speed| speed.quantile(-z));
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
        Some(self.with_stalls(forecast, usual).after(silence))
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
        let rate = line.speed.quantile(0.0);
        let pull = seconds_left(&layers, self.slots.max(USUAL_SLOTS), rate);
        let stalls = 1.0 + line.stalled;
        Some(as_ms(usual.waiting.middle()) + as_u64(pull * stalls * 1e3))
    }

    /// Forecasts a pull of which the engine has named no layer yet, by what an earlier pull of the image says.
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
        let extraction_time = self.extraction_factor(usual);
        let forecast = Forecast::by_quantile(|z| {
            let rate = line.speed.quantile(-z);
            seconds_left(&layers(extraction_time.quantile(z)), USUAL_SLOTS, rate)
        });
        Some(waiting.then(self.with_stalls(forecast, usual)))
    }

    /// Returns the speed to come in bytes per second, from what this pull shows and what is usual.
    fn speed_ahead(&self, bytes_left: f64, usual: &PullUsual) -> Option<LogNormal> {
        let arrived: f64 = self.pulled().map(|layer| as_f64(layer.arrived())).sum();
        let done = arrived / (bytes_left + arrived);
        let Some(seen) = self.line.evidence() else {
            return Some(usual.line?.speed);
        };
        let (shape, shape_variance) = usual
            .line
            .map_or((Shape::EVEN, ASSUMED_SHAPE_VARIANCE), |line| {
                (line.shape, line.shape_variance)
            });
        let relative = RelativeSpeeds::by_shape(shape, done, &seen);

        // Two judgements of the speed ahead, as logarithms: by all of the pull so far, and by its recent past.
        let by_whole = seen.mean.ln() + (relative.ahead / relative.behind).ln();
        let by_recent = seen.recent.ln() + (relative.ahead / relative.recent).ln();
        let difference = by_recent - by_whole;
        // The difference is believed as far as the line's own jitter does not explain it.
        let noise = seen.jitter * (1.0 / seen.window + 1.0 / seen.span) + CERTAIN * CERTAIN;
        let belief = difference * difference / (difference * difference + HALF_BELIEVED * noise);
        let change = belief * difference;
        // A line that changes is taken to go on changing for a while.
        let horizon = (bytes_left / (by_whole + change).exp()).max(LEAST_HORIZON_S);
        let trend = (TREND * change * (horizon / seen.span).min(MOST_TREND_TIMES))
            .clamp(-MOST_TREND, MOST_TREND);

        let rests_on_s = belief * seen.window + (1.0 - belief) * seen.span;
        let unknown = usual.line.map_or(UNKNOWN_LINE_VARIANCE, |_| 0.0);
        let time = relative.time;
        let by_this_pull = LogNormal {
            mean: by_whole + change + trend,
            variance: seen.jitter / rests_on_s
                + unknown / (1.0 + (seen.span / UNKNOWN_FOR_S).powi(2))
                + CERTAIN * CERTAIN
                + SHAPE_WEIGHT * shape_variance / (time * (1.0 - time)).max(LEAST_SHAPE_TIME)
                + (TREND_DEVIATION * trend).powi(2)
                + (CHANGE_DEVIATION * change).powi(2),
        };
        let judged = match usual.line {
            None => by_this_pull,
            Some(line) => LogNormal {
                mean: line.speed.mean + relative.ahead.ln(),
                variance: line.speed.variance,
            }
            .combined_with(by_this_pull),
        };
        Some(LogNormal {
            mean: judged.mean,
            // The mean over what is left has a jitter of its own.
            variance: judged.variance + seen.jitter / horizon,
        })
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

    /// Returns how much slower than expected this engine extracts in this pull.
    fn extraction_scale(&self, usual: &PullUsual) -> f64 {
        let (mut took, mut expected) = (EXTRACTION_PRIOR_S, EXTRACTION_PRIOR_S);
        for (layer, seconds) in self.extractions() {
            if let (Some(seconds), Some(total)) = (seconds, layer.total) {
                took += seconds;
                expected += usual.extraction_of(&layer.id, total);
            }
        }
        took / expected
    }

    /// Returns how an extraction's duration varies, as a multiple of what is expected.
    fn extraction_factor(&self, usual: &PullUsual) -> LogNormal {
        let known = self
            .pulled()
            .filter(|layer| usual.remembers(&layer.id))
            .count();
        let deviation = if known > 0 && known == self.pulled().count() {
            KNOWN_LAYERS_DEVIATION
        } else if usual.knows_extraction {
            KNOWN_ENGINE_DEVIATION
        } else {
            UNKNOWN_EXTRACTION_DEVIATION
        };
        LogNormal {
            mean: 0.0,
            variance: deviation * deviation,
        }
    }

    /// Adds the stalls that are to be expected to a forecast without any.
    fn with_stalls(&self, forecast: Forecast, usual: &PullUsual) -> Forecast {
        let stalls = self.stalls_ahead(forecast.mid, usual);
        Forecast {
            low: forecast.low,
            mid: forecast.mid + stalls,
            high: forecast.high + STALLS_P90_FACTOR * stalls,
        }
    }

    /// Returns the seconds that stalls are expected to take of what is left, when that takes `left`
    /// seconds without them.
    fn stalls_ahead(&self, left: f64, usual: &PullUsual) -> f64 {
        let (span, seen) = (self.line.span(), self.line.stalled().as_secs_f64());
        match usual.line {
            Some(line) => {
                let ratio = EXPECTED_STALLS * line.stalled / (1.0 - line.stalled).max(LEAST_MOVING);
                // Where stalls are usual, those that were seen already are not still to come.
                (ratio * (span + left) - seen).max(LEAST_STALLS_AHEAD * ratio * left)
            }
            // A stall may have been the only one, and is not expected more than once again.
            None => (REPEATED_STALLS * seen / (span + 1.0) * left).min(seen),
        }
    }
}

/// A line's speed in the parts of a pull, each as a multiple of its speed on the whole, as the line's
/// usual shape has them.
struct RelativeSpeeds {
    /// The share of the pull's time that is over, 0 to 1.
    time: f64,
    /// From now on.
    ahead: f64,
    /// From the beginning until now.
    behind: f64,
    /// In the recent past.
    recent: f64,
}

impl RelativeSpeeds {
    /// Reads them off a shape, when this share of the bytes is there.
    fn by_shape(shape: Shape, done: f64, seen: &Evidence) -> Self {
        let time = shape
            .time_of(done)
            .clamp(LEAST_SHARE_OF_TIME, 1.0 - LEAST_SHARE_OF_TIME);
        let recent_from = time * (1.0 - (seen.window / seen.span).min(1.0));
        Self {
            time,
            ahead: (1.0 - done).max(LEAST_SHARE_OF_BYTES) / (1.0 - time),
            behind: done.max(LEAST_SHARE_OF_BYTES) / time,
            recent: (done - shape.bytes_at(recent_from)).max(LEAST_SHARE_OF_BYTES)
                / (time - recent_from),
        }
    }
}
