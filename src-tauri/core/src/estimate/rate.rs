//! The speed of a line, from the bytes that arrived over it so far: on the whole, of late, and block by
//! block. What that says of the speed to come is worked out in `line`.

use std::time::Duration;

use super::as_f64;
use super::history::Shape;
use super::line::Blocks;

/// Silence that is longer than this is a stall: it counts as lost time and not as a slow line.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// Buckets that are kept; when there are more, neighbours are put together.
const MAX_BUCKETS: usize = 240;
const FIRST_WIDTH_S: f64 = 0.25;
/// A block has at least this length: in less time an engine's messages say more about its buffers than
/// about the line.
const MIN_BLOCK_S: f64 = 0.5;
/// Blocks that a line's past is divided into, when it is long.
const BLOCKS: f64 = 30.0;
/// Below this span there is no speed to speak of.
const MIN_SPAN_S: f64 = 0.5;
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
    stalls: u32,
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
            stalls: 0,
            stalled: Duration::ZERO,
            bytes: 0.0,
        }
    }
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
            self.stalls += 1;
            self.stalled += gap;
            self.put(0.0, as_f64(bytes));
        } else {
            self.put(gap.as_secs_f64(), as_f64(bytes));
        }
    }

    /// Returns how many stalls there were.
    pub(super) fn stalls(&self) -> u32 {
        self.stalls
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

    /// Returns the speeds so far, once there is a speed to speak of.
    pub(super) fn past(&self) -> Option<Blocks> {
        let mean = self.mean()?;
        let width = MIN_BLOCK_S.max(self.span / BLOCKS);
        Some(Blocks {
            width,
            speeds: self.blocks(width),
            span: self.span,
            mean,
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
        assert_eq!(meter.past(), None);
        meter.add(Duration::from_millis(100), 1_000);
        assert_eq!(meter.past(), None);
    }

    #[test]
    fn a_steady_line_is_the_same_in_every_block() {
        let meter = meter(&[1_000; 8]);
        let past = meter.past().unwrap();
        check(past.mean, 999.0..1_001.0);
        assert!((15..=16).contains(&past.speeds.len()), "{past:?}");
        for speed in past.speeds {
            check(speed, 999.0..1_001.0);
        }
        assert_eq!(meter.recent(Duration::from_secs(8)), Some(1_000.0));
    }

    #[test]
    fn a_long_past_has_longer_blocks_and_not_more() {
        let past = meter(&[1_000; 120]).past().unwrap();
        check(past.width, 3.9..4.1);
        check(as_f64(past.speeds.len() as u64), 29.0..31.0);
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
        assert_eq!(meter.stalls(), 1);
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
