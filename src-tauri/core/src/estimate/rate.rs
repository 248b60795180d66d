//! The speed of a line, from the bytes that arrived over it so far: on the whole, of late, and its
//! jitter. What that says of the speed to come is worked out in `pull/time_left`.
//!
//! Jitter, the variance of the speed around its own trend, is measured between neighbours, after von
//! Neumann's mean square successive difference (Annals of Mathematical Statistics 12, 1941), so that a
//! line that speeds up steadily does not pass for one with much jitter.

use std::time::Duration;

use super::as_f64;
use super::history::Shape;

/// Silence that is longer than this is a stall: it counts as lost time and not as a slow line.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// Buckets that are kept; when there are more, neighbours are put together.
const MAX_BUCKETS: usize = 240;
const FIRST_WIDTH_S: f64 = 0.25;
/// Jitter is looked for between blocks of at least this length: in less time an engine's messages
/// say more about its buffers than about the line.
const MIN_BLOCK_S: f64 = 0.5;
/// Blocks that a line's past is divided into, when it is long.
const BLOCKS: f64 = 30.0;
/// Jitter that is assumed before it can be measured: as a share of the speed, between blocks.
const ASSUMED_JITTER: f64 = 0.25;
/// No line is steadier than this, as a share of the speed.
const STEADIEST: f64 = 0.02;
/// Below this span there is no speed to speak of.
const MIN_SPAN_S: f64 = 0.5;
/// The recent past is at least this long, in seconds of fading.
const MIN_MEMORY_S: f64 = 1.5;
/// A span that is shorter has no shape.
const MIN_SHAPE_S: f64 = 2.0;
/// The displayed rate looks back this far.
const DISPLAY_WINDOW_S: f64 = 4.0;

/// What arrived over a line, and when.
#[derive(Debug, Clone)]
pub(super) struct RateMeter {
    /// When the line was first waited for.
    begun: Option<Duration>,
    last: Duration,
    /// Bytes in each stretch of `width` seconds since it began, stalls left out.
    buckets: Vec<f64>,
    width: f64,
    /// Seconds that count, so far.
    span: f64,
    stalled: Duration,
    bytes: f64,
}

impl Default for RateMeter {
    fn default() -> Self {
        Self {
            begun: None,
            last: Duration::ZERO,
            buckets: Vec::new(),
            width: FIRST_WIDTH_S,
            span: 0.0,
            stalled: Duration::ZERO,
            bytes: 0.0,
        }
    }
}

/// What a line has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Evidence {
    /// Bytes per second over the whole span.
    pub mean: f64,
    /// The span in seconds.
    pub span: f64,
    /// Bytes per second in the recent past.
    pub recent: f64,
    /// The seconds that the recent past rests on.
    pub window: f64,
    /// The variance of the logarithm of a mean over one second; over `n` seconds it is an `n`th.
    pub jitter: f64,
}

impl RateMeter {
    /// Takes note that bytes are waited for from now on.
    pub(super) fn begin(&mut self, at: Duration) {
        if self.begun.is_none() {
            self.begun = Some(at);
            self.last = at;
        }
    }

    /// Takes note of bytes that arrived since the last time.
    pub(super) fn add(&mut self, at: Duration, bytes: u64) {
        self.begin(at);
        let gap = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        if gap > STALL {
            self.stalled += gap;
            self.put(0.0, as_f64(bytes));
        } else {
            self.put(gap.as_secs_f64(), as_f64(bytes));
        }
    }

    /// Returns how long nothing arrived, over all stalls.
    pub(super) fn stalled(&self) -> Duration {
        self.stalled
    }

    /// Returns the seconds in which bytes were awaited, stalls left out.
    pub(super) fn span(&self) -> f64 {
        self.span
    }

    /// Returns the bytes per second over the whole span.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.span >= MIN_SPAN_S && self.bytes > 0.0).then(|| self.bytes / self.span)
    }

    /// Returns the bytes per second of the last seconds before this time, for display.
    pub(super) fn recent(&self, at: Duration) -> Option<f64> {
        self.begun?;
        let silence = at.saturating_sub(self.last).as_secs_f64();
        let window = DISPLAY_WINDOW_S.min(self.span + silence);
        if self.span < MIN_SPAN_S {
            return None;
        }
        let heard = (window - silence).max(0.0);
        Some(self.bytes_within(heard) / window)
    }

    /// Returns what the line has shown, once it has shown anything.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        let mean = self.mean()?;
        let block = MIN_BLOCK_S.max(self.span / BLOCKS);
        let blocks = self.blocks(block);
        let jitter = jitter(&blocks, mean);
        let memory = MIN_MEMORY_S.max(self.span / 5.0);
        let recent = weighted_mean(&blocks, block, memory).unwrap_or(mean);
        Some(Evidence {
            mean,
            span: self.span,
            recent: recent.max(1.0),
            // A mean whose weights fade rests on about twice its memory.
            window: (2.0 * memory).min(self.span),
            jitter: jitter.max(STEADIEST * STEADIEST) * block,
        })
    }

    /// Returns how the bytes are spread over the span.
    pub(super) fn shape(&self) -> Option<Shape> {
        if self.span < MIN_SHAPE_S || self.bytes <= 0.0 {
            return None;
        }
        let mut quarters = Shape::EVEN.quarters;
        for (quarter, wanted) in quarters.iter_mut().zip([0.25, 0.5, 0.75]) {
            let wanted = wanted * self.bytes;
            let mut before = 0.0;
            for (place, bytes) in self.buckets.iter().enumerate() {
                if before + bytes >= wanted {
                    let within = (wanted - before) / bytes.max(1.0);
                    let at = (as_f64(place as u64) + within) * self.width;
                    *quarter = (at / self.span).min(1.0);
                    break;
                }
                before += bytes;
            }
        }
        Some(Shape { quarters })
    }

    /// Puts bytes at the end of the span, evenly over its last seconds.
    fn put(&mut self, seconds: f64, bytes: f64) {
        self.bytes += bytes;
        let (from, to) = (self.span, self.span + seconds);
        self.span = to;
        while to / self.width >= as_f64(MAX_BUCKETS as u64) {
            self.buckets = self
                .buckets
                .chunks(2)
                .map(|pair| pair.iter().sum())
                .collect();
            self.width *= 2.0;
        }
        let (first, last) = (index(from / self.width), index(to / self.width));
        self.buckets.resize(last + 1, 0.0);
        for (place, bucket) in self.buckets.iter_mut().enumerate().skip(first) {
            let begin = as_f64(place as u64) * self.width;
            let share = if seconds > 0.0 {
                (to.min(begin + self.width) - from.max(begin)).max(0.0) / seconds
            } else {
                1.0
            };
            *bucket += bytes * share;
        }
    }

    /// Returns the bytes of the last seconds of the span.
    fn bytes_within(&self, seconds: f64) -> f64 {
        let from = (self.span - seconds).max(0.0);
        let buckets = self.buckets.iter().enumerate().rev();
        let within = buckets.map_while(|(place, bytes)| {
            let begin = as_f64(place as u64) * self.width;
            let end = (begin + self.width).min(self.span);
            (end > from).then(|| {
                let share = if end > begin {
                    (end - from.max(begin)) / (end - begin)
                } else {
                    1.0
                };
                bytes * share
            })
        });
        within.sum()
    }

    /// Returns the bytes per second of each whole block, the last one ending now.
    fn blocks(&self, block: f64) -> Vec<f64> {
        let count = index(self.span / block);
        let mut sums: Vec<f64> = (0..=count)
            .map(|place| self.bytes_within(as_f64(place as u64) * block))
            .collect();
        sums.reverse();
        sums.windows(2)
            .filter_map(|pair| Some((pair.first()? - pair.last()?) / block))
            .collect()
    }
}

/// Returns the variance of a block's speed as a share of the mean's square, by second differences:
/// `E (x₁ − 2x₂ + x₃)² = 6σ²`, whatever straight line the speeds follow.
fn jitter(blocks: &[f64], mean: f64) -> f64 {
    let (mut squares, mut count) = (0.0, 0.0);
    for window in blocks.windows(3) {
        if let [first, second, third] = window {
            squares += (first - 2.0 * second + third).powi(2);
            count += 1.0;
        }
    }
    // Few differences say little: what is assumed counts as one of them.
    let measured = squares / (6.0 * mean * mean);
    (measured + ASSUMED_JITTER * ASSUMED_JITTER) / (count + 1.0)
}

/// Returns the mean of the blocks, newest last, in which weight fades over `memory` seconds.
fn weighted_mean(blocks: &[f64], block: f64, memory: f64) -> Option<f64> {
    let fade = (-block / memory).exp();
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for speed in blocks.iter().rev() {
        sum += weight * speed;
        weights += weight;
        weight *= fade;
    }
    (weights > 0.0).then(|| sum / weights)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small, positive number of buckets"
)]
fn index(place: f64) -> usize {
    place.max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a meter that heard of each second's bytes in tenths.
    fn meter(seconds: &[u64]) -> RateMeter {
        let mut meter = RateMeter::default();
        meter.begin(Duration::ZERO);
        for (second, bytes) in (0..).zip(seconds) {
            for tenth in 1..=10 {
                let at = Duration::from_millis(second * 1_000 + tenth * 100);
                meter.add(at, bytes / 10);
            }
        }
        meter
    }

    #[track_caller]
    fn check(actual: f64, expected: std::ops::Range<f64>) {
        assert!(expected.contains(&actual), "{actual}, not in {expected:?}");
    }

    #[test]
    fn there_is_no_speed_before_there_is_a_span() {
        let mut meter = RateMeter::default();
        meter.begin(Duration::ZERO);
        assert_eq!(meter.evidence(), None);
        meter.add(Duration::from_millis(100), 1_000);
        assert_eq!(meter.evidence(), None);
    }

    #[test]
    fn a_steady_line_is_the_same_of_late_and_on_the_whole() {
        let meter = meter(&[1_000; 8]);
        let evidence = meter.evidence().unwrap();
        check(evidence.mean, 999.0..1_001.0);
        check(evidence.recent, 999.0..1_001.0);
        check(evidence.jitter.sqrt(), 0.0..0.1);
        assert_eq!(meter.recent(Duration::from_secs(8)), Some(1_000.0));
    }

    #[test]
    fn a_line_with_much_jitter_is_known_for_one() {
        let evidence = meter(&[200, 1_800, 200, 1_800, 200, 1_800, 200, 1_800])
            .evidence()
            .unwrap();
        check(evidence.mean, 999.0..1_001.0);
        check(evidence.jitter.sqrt(), 0.4..1.2);
    }

    #[test]
    fn a_line_that_speeds_up_steadily_is_faster_of_late_and_has_no_jitter() {
        let evidence = meter(&[500, 700, 900, 1_100, 1_300, 1_500, 1_700, 1_900])
            .evidence()
            .unwrap();
        check(evidence.recent / evidence.mean, 1.2..1.6);
        check(evidence.jitter.sqrt(), 0.0..0.2);
    }

    #[test]
    fn the_shape_says_when_the_bytes_came() {
        let even = meter(&[1_000; 8]).shape().unwrap();
        for (quarter, expected) in even.quarters.into_iter().zip([0.25, 0.5, 0.75]) {
            check(quarter, expected - 0.01..expected + 0.01);
        }
        let late = meter(&[0, 0, 0, 0, 1_000, 1_000, 1_000, 1_000])
            .shape()
            .unwrap();
        for (quarter, expected) in late.quarters.into_iter().zip([0.625, 0.75, 0.875]) {
            check(quarter, expected - 0.01..expected + 0.01);
        }
    }

    #[test]
    fn a_stall_is_lost_time_and_not_a_slow_line() {
        let mut meter = meter(&[1_000; 4]);
        meter.add(Duration::from_secs(14), 1_000);
        for second in 15..19 {
            meter.add(Duration::from_secs(second), 1_000);
        }
        assert_eq!(meter.stalled(), Duration::from_secs(10));
        check(meter.mean().unwrap(), 900.0..1_200.0);
    }

    #[test]
    fn a_long_pull_is_kept_in_a_bounded_place() {
        let meter = meter(&[1_000; 600]);
        assert!(meter.buckets.len() <= MAX_BUCKETS);
        check(meter.mean().unwrap(), 999.0..1_001.0);
        check(meter.shape().unwrap().quarters[1], 0.49..0.51);
    }
}
