//! How good the predictions of a run were, against what really came. Pure: traces come in, figures go out.

use crate::predictors::{Averages, Predictor, Remaining};
use crate::trace::{Link, Pass, Told, Trace};

/// Shares of the run at which a prediction of its whole length is judged.
pub(crate) const CHECKPOINTS: [f64; 3] = [0.25, 0.5, 0.75];

/// An ETA that rises by more than this share and this many milliseconds at once is a jump.
const JUMP: (f64, f64) = (0.2, 1e3);

/// The figures of one run. Errors are shares of the run's whole length.
#[derive(Debug, Clone)]
pub(crate) struct RunScore {
    pub(crate) link: Link,
    pub(crate) pass: Pass,
    pub(crate) image: String,
    pub(crate) total_ms: f64,
    /// In the order of [`Predictor::ALL`].
    pub(crate) predictors: [PredictorScore; 4],
    pub(crate) told: ToldScore,
}

/// How good one predictor was in one run.
#[derive(Debug, Clone)]
pub(crate) struct PredictorScore {
    pub(crate) predictor: Predictor,
    /// `|predicted whole − whole| / whole` at each of [`CHECKPOINTS`], by the last word before it; `None` when that
    /// was no answer.
    pub(crate) checkpoints: [Option<f64>; 3],
    /// Mean over time of `|predicted − true remaining| / whole`, over the time in which Cove had an answer; where
    /// this predictor then had none, that time is left out for it. `None` when nothing is left.
    pub(crate) error: Option<f64>,
    /// The same over all of the time; a moment without an answer counts as an error of 100 %.
    pub(crate) strict_error: f64,
    /// Share of the time with an answer.
    pub(crate) answered: f64,
    /// True and predicted remaining milliseconds at each event; for the plot.
    pub(crate) moments: Vec<(f64, Remaining)>,
}

/// What else can be said of the events that were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToldScore {
    /// Events with a range, and those of them whose range holds the true remaining time.
    pub(crate) ranges: usize,
    pub(crate) ranges_right: usize,
    /// Times the percent fell.
    pub(crate) regressions: usize,
    /// Times the told ETA rose by more than [`JUMP`] at once.
    pub(crate) jumps: usize,
    /// Longest time in which nothing changed that is displayed, without its being called a stall.
    pub(crate) frozen_ms: f64,
    /// From the press to the first event.
    pub(crate) first_event_ms: f64,
    /// Most progress events within any one second.
    pub(crate) busiest_second: usize,
}

/// Judges all runs, which are in the order in which they were made: baselines learn from those before.
pub(crate) fn evaluate(traces: &[Trace]) -> Vec<RunScore> {
    let mut averages = Averages::default();
    let mut scores = Vec::new();
    for trace in traces.iter().filter(|trace| trace.link != Link::Free) {
        scores.push(score(trace, &averages));
        averages.learn(trace);
    }
    scores
}

fn score(trace: &Trace, averages: &Averages) -> RunScore {
    let cove = Predictor::Cove.predict(trace, averages);
    RunScore {
        link: trace.link,
        pass: trace.pass,
        image: trace.image.clone(),
        total_ms: trace.total_ms,
        predictors: Predictor::ALL.map(|predictor| {
            let predicted = predictor.predict(trace, averages);
            score_predictor(trace, predictor, &predicted, &cove)
        }),
        told: score_told(trace),
    }
}

fn score_predictor(
    trace: &Trace,
    predictor: Predictor,
    predicted: &[Remaining],
    cove: &[Remaining],
) -> PredictorScore {
    let total = trace.total_ms;
    let times: Vec<f64> = trace.events.iter().map(|told| told.at_ms).collect();
    let ends = times.iter().skip(1).copied().chain([total]);
    let (mut fair, mut strict, mut answered) = (Mean::default(), Mean::default(), Mean::default());
    // A word stands until the next one.
    for (((at, end), predicted), cove) in times.iter().zip(ends).zip(predicted).zip(cove) {
        let lasts = (end - at).max(0.0);
        let error = predicted.map(|predicted| (predicted - (total - at)).abs() / total);
        strict.add(error.unwrap_or(1.0), lasts);
        answered.add(f64::from(u8::from(error.is_some())), lasts);
        if let (Some(error), Some(_)) = (error, cove) {
            fair.add(error, lasts);
        }
    }
    PredictorScore {
        predictor,
        checkpoints: CHECKPOINTS.map(|share| {
            let before = times.iter().zip(predicted);
            let (at, predicted) = before
                .take_while(|(at, _)| **at <= share * total)
                .last()
                .map(|(at, predicted)| (*at, *predicted))?;
            Some((at + predicted? - total).abs() / total)
        }),
        error: fair.value(),
        strict_error: strict.value().unwrap_or(1.0),
        answered: answered.value().unwrap_or(0.0),
        moments: times
            .iter()
            .zip(predicted)
            .map(|(at, predicted)| (total - at, *predicted))
            .collect(),
    }
}

fn score_told(trace: &Trace) -> ToldScore {
    let events = &trace.events;
    let mut score = ToldScore {
        first_event_ms: events.first().map_or(trace.total_ms, |told| told.at_ms),
        ..ToldScore::default()
    };
    let mut eta_before = None;
    let mut percent_before = 0.0;
    let mut shown_before = None;
    let mut shown_since = 0.0;
    let mut was_stalled = false;
    for (index, told) in events.iter().enumerate() {
        if let Some((low, high)) = told.range_ms() {
            score.ranges += 1;
            let is_right = (low..=high).contains(&(trace.total_ms - told.at_ms));
            score.ranges_right += usize::from(is_right);
        }
        score.regressions += usize::from(told.percent() < percent_before);
        percent_before = told.percent();
        if let Some(eta) = told.eta_ms() {
            let is_jump = |before: f64| eta > before * (1.0 + JUMP.0) && eta - before > JUMP.1;
            score.jumps += usize::from(eta_before.is_some_and(is_jump));
            eta_before = Some(eta);
        }
        if was_stalled {
            shown_since = told.at_ms;
        }
        was_stalled = told.is_stalled();
        score.frozen_ms = score.frozen_ms.max(told.at_ms - shown_since);
        let shown = Some(shown(told));
        if shown != shown_before || was_stalled {
            shown_since = told.at_ms;
            shown_before = shown;
        }
        let within = events.get(index..).unwrap_or_default().iter();
        let within = within.take_while(|later| later.at_ms < told.at_ms + 1e3);
        score.busiest_second = score.busiest_second.max(within.count());
    }
    if !was_stalled {
        score.frozen_ms = score.frozen_ms.max(trace.total_ms - shown_since);
    }
    score
}

/// Returns what the window shows of an event: phase, whole percent, the ETA's whole seconds, and the pull's figures in
/// megabytes, with tenths below ten. The elapsed time is left out: it runs by itself.
fn shown(told: &Told) -> String {
    let is_small = |bytes: f64| bytes < 9.95e6;
    let unit = |bytes: f64| if is_small(bytes) { 1e5 } else { 1e6 };
    let bytes_unit = told.pull("total_bytes").map_or(1e5, unit);
    let bytes = |name: &str| told.pull(name).map(|bytes| (bytes / bytes_unit).round());
    let rate = told.pull("bytes_per_second");
    let seconds = |ms: f64| (ms / 1e3).ceil();
    let range = told.range_ms();
    format!(
        "{:?} {} {:?} {:?} {:?} {:?} {:?}",
        told.phase,
        told.percent().floor(),
        told.eta_ms().map(seconds),
        range.map(|(low, high)| (seconds(low), seconds(high))),
        ["downloaded_bytes", "total_bytes"].map(bytes),
        rate.map(|rate| (rate / unit(rate)).round()),
        ["layers_done", "layers_total"].map(|name| told.pull(name)),
    )
}

/// A mean with weights.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// Returns the plain mean; `None` of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut mean = Mean::default();
    for value in values {
        mean.add(value, 1.0);
    }
    mean.value()
}

/// Returns the median; `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::trace::example;

    /// A run of 10 s in which Cove told this.
    fn run(told: &[(f64, Value)]) -> RunScore {
        let starts = [0.0, 0.0, 8e3, 8e3, 8e3];
        let mut trace = example::trace(starts, 10e3, &[], &[]);
        let events = told.iter().cloned();
        trace.events = events.map(|(at, told)| example::told(at, told)).collect();
        score(&trace, &Averages::default())
    }

    fn eta(ms: Option<u64>) -> Value {
        json!({"percent": 1.0, "eta_ms": ms})
    }

    #[track_caller]
    fn check_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
    }

    #[test]
    fn an_error_weighs_as_long_as_it_is_displayed() {
        let score = run(&[(0.0, eta(Some(12_000))), (9e3, eta(Some(1_000)))]);
        let cove = &score.predictors[0];
        // 20 % of the run's length for nine tenths of it, then nothing.
        check_near(cove.error.unwrap(), 0.18);
        check_near(cove.strict_error, 0.18);
        check_near(cove.answered, 1.0);
    }

    #[test]
    fn a_moment_without_an_answer_is_left_out_for_all_and_counts_whole_in_the_strict_figure() {
        let score = run(&[(0.0, eta(None)), (5e3, eta(Some(4_000)))]);
        let cove = &score.predictors[0];
        check_near(cove.error.unwrap(), 0.1);
        check_near(cove.strict_error, 0.55);
        check_near(cove.answered, 0.5);
        // The averages expect 60 s from the pull on; at 5 s that is 55 against 5.
        check_near(score.predictors[1].error.unwrap(), 5.0);
        check_near(score.predictors[1].answered, 1.0);
        assert_eq!(score.predictors[2].error, None);
    }

    #[test]
    fn a_checkpoint_takes_the_last_word_before_it() {
        let score = run(&[
            (0.0, eta(Some(15_000))),
            (4e3, eta(Some(7_000))),
            (6e3, eta(None)),
            (9e3, eta(Some(1_000))),
        ]);
        let [quarter, half, three_quarters] = score.predictors[0].checkpoints;
        check_near(quarter.unwrap(), 0.5);
        check_near(half.unwrap(), 0.1);
        assert_eq!(three_quarters, None);
    }

    #[test]
    fn only_a_rise_by_more_than_a_fifth_and_a_second_is_a_jump() {
        let etas = [5_000, 4_000, 4_900, 8_000, 9_100, 500, 1_400];
        let told: Vec<_> = (0..7).zip(etas).collect();
        let told: Vec<_> = told
            .iter()
            .map(|(second, ms)| (f64::from(*second) * 1e3, eta(Some(*ms))))
            .collect();
        assert_eq!(run(&told).told.jumps, 1);
    }

    #[test]
    fn a_falling_percent_is_counted() {
        let percents = [1.0, 2.0, 1.9, 3.0].map(|percent| json!({"percent": percent}));
        let told: Vec<_> = [0.0, 1.0, 2.0, 3.0].into_iter().zip(percents).collect();
        assert_eq!(run(&told).told.regressions, 1);
    }

    #[test]
    fn ranges_are_counted_and_so_are_those_that_hold_the_truth() {
        let range = |low: u64, high: u64| json!({"eta_low_ms": low, "eta_high_ms": high});
        let told = run(&[
            (0.0, range(9_000, 11_000)),
            (1e3, range(1_000, 8_999)),
            (2e3, eta(Some(1))),
        ])
        .told;
        assert_eq!((told.ranges, told.ranges_right), (2, 1));
    }

    #[test]
    fn a_display_that_stands_still_is_frozen_unless_it_is_called_a_stall() {
        let still = json!({"percent": 1.0});
        let stalled =
            json!({"percent": 1.0, "eta": {"kind": "stalled", "idle_ms": 3000, "layer": null}});
        let score = run(&[
            (1e3, still.clone()),
            (3e3, still),
            (4e3, stalled.clone()),
            (8e3, stalled),
        ]);
        // From 1 s to the stall at 4 s; the stall is told until 8 s, and the run ends at 10 s.
        check_near(score.told.frozen_ms, 3e3);
        check_near(score.told.first_event_ms, 1e3);
    }

    #[test]
    fn the_busiest_second_may_begin_anywhere() {
        let times = [0.0, 900.0, 1_100.0, 1_300.0, 1_899.0, 1_900.0];
        let told: Vec<_> = times.into_iter().map(|at| (at, eta(None))).collect();
        assert_eq!(run(&told).told.busiest_second, 4);
    }

    #[test]
    fn a_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
