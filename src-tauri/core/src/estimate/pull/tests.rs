use super::*;
use crate::estimate::{Forecast, History, ImageSource, RunKind, RunSample};

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
        let pull = PullSample {
            rate: Some(as_f64(rate * MB)),
            ..PullSample::default()
        };
        let sample = RunSample {
            pull: Some(pull),
            ..RunSample::default()
        };
        history.learn(&kind(), sample);
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
fn layers_beyond_any_image_are_not_counted_and_a_long_list_in_another_order_is_taken() {
    let names: Vec<String> = (0..20_000).map(|layer| format!("{layer:012}")).collect();
    let mut tracker = PullTracker::default();
    for name in &names {
        let message = PullMessage {
            layer: name.clone(),
            step: LayerStep::Announced,
        };
        tracker.take(&message, Duration::ZERO);
    }
    let manifest = names.iter().rev().map(|name| LayerSize {
        digest: format!("sha256:{name}"),
        bytes: 1,
    });
    tracker.learn_manifest(manifest.collect());
    let progress = tracker.progress(Duration::ZERO);
    assert_eq!(progress.layers_total, u32::try_from(LAYER_LIMIT).unwrap());
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
fn the_sample_of_a_pull_has_its_line_and_its_layers() {
    let mut tracker = steady(10);
    take(&mut tracker, 10_000, "a", LayerStep::Downloaded);
    take(&mut tracker, 10_000, "a", extracting(1, 100));
    take(&mut tracker, 12_000, "a", LayerStep::Done);
    let sample = tracker.sample();
    assert!((sample.rate.unwrap() - 10e6).abs() < 0.2e6, "{sample:?}");
    assert!(sample.shape.is_some(), "{sample:?}");
    let memory = LayerMemory {
        id: "a".to_owned(),
        bytes: 100 * MB,
        extraction_s: Some(2.0),
    };
    assert_eq!(sample.layers, [memory]);
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
