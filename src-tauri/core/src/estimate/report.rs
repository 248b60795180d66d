//! Where the time of a run went, against what is usual, and in one sentence what made it slow.

use std::time::Duration;

use super::{PullView, Usual, as_f64, as_ms};
use crate::progress::{FinishedPhase, Phase};
use crate::timing::{PhaseTiming, PullTiming, RunOutcome, TimingReport};

/// From this factor on something took longer than usual,
const SLOW_FACTOR: f64 = 1.4;
/// if it was by this much, in milliseconds: less is not felt.
const SLOW_MS: u64 = 1_000;

/// Puts the report together. `phases` includes the one in which the run ended.
pub(super) fn report(
    outcome: RunOutcome,
    total: Duration,
    phases: &[FinishedPhase],
    usual: Option<&Usual>,
    pull: Option<PullView<'_>>,
) -> TimingReport {
    let pull_usual = usual.and_then(|usual| usual.pull.as_ref());
    let pull_timing = pull
        .zip(pull_usual)
        .map(|(pull, usual)| pull.tracker.timing(pull.at, usual, pull.joined));
    let whole_pull = pull
        .zip(pull_usual)
        .and_then(|(pull, usual)| pull.tracker.usual_ms(usual));
    let phases: Vec<_> = phases
        .iter()
        .map(|finished| PhaseTiming {
            phase: finished.phase,
            took_ms: finished.elapsed_ms,
            usual_ms: match (finished.phase, pull) {
                (Phase::PullingImage, Some(_)) => whole_pull,
                (phase, _) => usual
                    .filter(|usual| usual.is_learned(phase))
                    .and_then(|usual| usual.of(phase))
                    .map(|spread| as_ms(spread.middle())),
            },
        })
        .collect();
    let usual_ms = phases
        .iter()
        .map(|phase| phase.usual_ms)
        .sum::<Option<u64>>();
    TimingReport {
        outcome,
        total_ms: as_ms(total),
        usual_ms: usual_ms.filter(|_| outcome == RunOutcome::Ready),
        verdict: verdict(&phases, pull_timing.as_ref()),
        phases,
        pull: pull_timing,
    }
}

/// A part of a run, and how to say that it was slow.
struct Part {
    took_ms: u64,
    usual_ms: Option<u64>,
    slow: String,
    most: String,
}

fn verdict(phases: &[PhaseTiming], pull: Option<&PullTiming>) -> String {
    let parts = parts(phases, pull);
    let excess = |part: &Part| {
        let usual = part.usual_ms?;
        let by = part.took_ms.saturating_sub(usual);
        (by >= SLOW_MS && as_f64(part.took_ms) >= SLOW_FACTOR * as_f64(usual)).then_some(by)
    };
    let slowest = parts
        .iter()
        .filter_map(|part| Some((excess(part)?, part)))
        .max_by_key(|(by, _)| *by);
    if let Some((_, part)) = slowest {
        return part.slow.clone();
    }
    let longest = parts.iter().max_by_key(|part| part.took_ms);
    match longest {
        Some(part) if part.usual_ms.is_none() && part.took_ms >= SLOW_MS => {
            format!("Most of the time went into {}.", part.most)
        }
        _ if phases.iter().any(|phase| phase.usual_ms.is_some()) => {
            "Nothing took notably longer than usual.".to_owned()
        }
        _ => "There is nothing to compare this with yet.".to_owned(),
    }
}

fn parts(phases: &[PhaseTiming], pull: Option<&PullTiming>) -> Vec<Part> {
    let mut parts = Vec::new();
    for timing in phases {
        if let (Phase::PullingImage, Some(pull)) = (timing.phase, pull) {
            parts.extend(parts_of_pull(pull));
            continue;
        }
        let doing = timing.phase.doing();
        let took = seconds(timing.took_ms);
        let usual = timing.usual_ms.map(seconds).unwrap_or_default();
        parts.push(Part {
            took_ms: timing.took_ms,
            usual_ms: timing.usual_ms,
            slow: capitalised(&format!("{doing} took {took}, where {usual} is usual.")),
            most: format!("{doing} ({took})"),
        });
    }
    parts
}

fn parts_of_pull(pull: &PullTiming) -> [Part; 4] {
    let rate = pull.bytes_per_second.map(megabytes).unwrap_or_default();
    let usual_rate = pull
        .usual_bytes_per_second
        .map(megabytes)
        .unwrap_or_default();
    let (waiting, download) = (seconds(pull.waiting_ms), seconds(pull.download_ms));
    let (extract, stalled) = (seconds(pull.extract_ms), seconds(pull.stalled_ms));
    let usual_extract = pull.usual_extract_ms.map(seconds).unwrap_or_default();
    let moving_ms = pull.download_ms.saturating_sub(pull.stalled_ms);
    [
        Part {
            took_ms: pull.waiting_ms,
            // No registry is usually silent for seconds.
            usual_ms: Some(SLOW_MS),
            slow: format!("The registry took {waiting} to send the first byte."),
            most: format!("waiting for the registry ({waiting})"),
        },
        Part {
            took_ms: moving_ms,
            usual_ms: pull.usual_download_ms,
            slow: format!("The download was slow: {rate}/s, where {usual_rate}/s is usual."),
            most: format!("the download ({download} at {rate}/s)"),
        },
        Part {
            took_ms: pull.stalled_ms,
            usual_ms: Some(0),
            slow: format!("The pull stood still for {stalled}."),
            most: format!("waiting for a pull that stood still ({stalled})"),
        },
        Part {
            took_ms: pull.extract_ms,
            usual_ms: pull.usual_extract_ms,
            slow: format!("Extracting the image took {extract}, where {usual_extract} is usual."),
            most: format!("extracting the image ({extract})"),
        },
    ]
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", as_f64(ms) / 1e3)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", as_f64(bytes) / 1e6)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(phase: Phase, took_ms: u64, usual_ms: Option<u64>) -> PhaseTiming {
        PhaseTiming {
            phase,
            took_ms,
            usual_ms,
        }
    }

    fn pulled() -> PullTiming {
        PullTiming {
            joined: false,
            layers: 3,
            existing_layers: 0,
            downloaded_bytes: 40_000_000,
            waiting_ms: 300,
            download_ms: 10_000,
            usual_download_ms: Some(9_500),
            extract_ms: 2_000,
            usual_extract_ms: Some(2_000),
            stalled_ms: 0,
            bytes_per_second: Some(4_000_000),
            usual_bytes_per_second: Some(4_200_000),
        }
    }

    #[track_caller]
    fn check(pull: PullTiming, expected: &str) {
        let phases = [phase(Phase::PullingImage, 12_500, Some(12_000))];
        assert_eq!(verdict(&phases, Some(&pull)), expected);
    }

    #[test]
    fn the_verdict_names_what_cost_most_beyond_the_usual() {
        check(pulled(), "Nothing took notably longer than usual.");
        check(
            PullTiming {
                usual_download_ms: Some(3_600),
                usual_bytes_per_second: Some(11_000_000),
                ..pulled()
            },
            "The download was slow: 4.0 MB/s, where 11.0 MB/s is usual.",
        );
        check(
            PullTiming {
                stalled_ms: 6_000,
                ..pulled()
            },
            "The pull stood still for 6.0 s.",
        );
        check(
            PullTiming {
                extract_ms: 9_000,
                ..pulled()
            },
            "Extracting the image took 9.0 s, where 2.0 s is usual.",
        );
        check(
            PullTiming {
                waiting_ms: 5_000,
                ..pulled()
            },
            "The registry took 5.0 s to send the first byte.",
        );
    }

    #[test]
    fn a_slow_phase_is_named_too() {
        let phases = [
            phase(Phase::Starting, 10, Some(10)),
            phase(Phase::StartingContainer, 4_000, Some(600)),
        ];
        assert_eq!(
            verdict(&phases, None),
            "Starting the container took 4.0 s, where 0.6 s is usual."
        );
    }

    #[test]
    fn a_moment_more_is_not_worth_a_word() {
        let phases = [phase(Phase::StartingContainer, 900, Some(100))];
        assert_eq!(
            verdict(&phases, None),
            "Nothing took notably longer than usual."
        );
    }

    #[test]
    fn without_anything_to_compare_with_it_says_where_the_time_went() {
        let pull = PullTiming {
            usual_download_ms: None,
            usual_extract_ms: None,
            usual_bytes_per_second: None,
            ..pulled()
        };
        let phases = [phase(Phase::PullingImage, 12_500, None)];
        assert_eq!(
            verdict(&phases, Some(&pull)),
            "Most of the time went into the download (10.0 s at 4.0 MB/s)."
        );
        assert_eq!(
            verdict(&[phase(Phase::StartingContainer, 300, None)], None),
            "There is nothing to compare this with yet."
        );
    }
}
