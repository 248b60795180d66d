//! What earlier runs took: an exponential moving average per image and phase, cold and cached pulls
//! apart, over successful runs only.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::progress::Phase;

/// Weight of the newest run: `average ← 0.3 × newest + 0.7 × average`.
const ALPHA: f64 = 0.3;
/// What is expected before anything was learned, in seconds, for the phases in order.
const DEFAULTS_S: [u64; 5] = [2, 30, 5, 10, 15];
/// Images that are remembered; the one that was used longest ago goes first.
const MAX_IMAGES: usize = 400;
/// Stands for every image: what starting a container takes depends on the engine more than on it.
const ANY_IMAGE: &str = "*";

/// What a run's durations depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunKind<'a> {
    /// The normalised image reference.
    pub image: &'a str,
    /// Whether the image was on the engine already.
    pub cached: bool,
}

/// Durations of earlier runs. Bounded in size; serialises as what is kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Counts runs, to know which image was used last.
    runs: u64,
    averages: BTreeMap<String, Averages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Averages {
    /// Average durations in milliseconds, for the phases in order.
    phases_ms: [f64; 5],
    /// The number of the last run that counted.
    last_run: u64,
}

/// What a run is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    phases: [(Duration, bool); 5],
}

impl History {
    /// Adds a successful run: its durations for the phases in order.
    pub fn learn(&mut self, kind: RunKind<'_>, durations: [Duration; 5]) {
        self.runs += 1;
        for key in [
            key(kind),
            key(RunKind {
                image: ANY_IMAGE,
                ..kind
            }),
        ] {
            let newest = durations.map(|duration| duration.as_secs_f64() * 1e3);
            let averages = self.averages.entry(key).or_insert(Averages {
                phases_ms: newest,
                last_run: self.runs,
            });
            averages.last_run = self.runs;
            for (average, newest) in averages.phases_ms.iter_mut().zip(newest) {
                *average = ALPHA * newest + (1.0 - ALPHA) * *average;
            }
        }
        while self.averages.len() > MAX_IMAGES {
            let oldest = self
                .averages
                .iter()
                .min_by_key(|(_, averages)| averages.last_run);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            self.averages.remove(&oldest);
        }
    }

    /// Returns what a run is expected to take: by its image's history, else by that of any image
    /// (except for a cold pull, which says nothing about another image), else by the defaults.
    #[must_use]
    pub fn expected(&self, kind: RunKind<'_>) -> Expected {
        let own = self.averages.get(&key(kind));
        let any = self.averages.get(&key(RunKind {
            image: ANY_IMAGE,
            ..kind
        }));
        let mut phases = [(Duration::ZERO, false); 5];
        let rows = phases
            .iter_mut()
            .zip(Phase::WORKING)
            .zip(DEFAULTS_S)
            .enumerate();
        for (index, ((slot, phase), default)) in rows {
            let is_pull = phase == Phase::PullingImage;
            let learned = own.or(any.filter(|_| !is_pull)).and_then(|averages| {
                let ms = averages.phases_ms.get(index).copied()?;
                Duration::try_from_secs_f64(ms / 1e3).ok()
            });
            let default = if is_pull && kind.cached { 0 } else { default };
            *slot = (
                learned.unwrap_or(Duration::from_secs(default)),
                learned.is_some(),
            );
        }
        Expected { phases }
    }
}

impl Expected {
    /// Returns the expected duration of a phase; none for [`Phase::Ready`].
    #[must_use]
    pub fn of(&self, phase: Phase) -> Duration {
        self.slot(phase)
            .map_or(Duration::ZERO, |(duration, _)| duration)
    }

    /// Returns whether a phase's duration was learned, rather than being a default.
    #[must_use]
    pub fn is_learned(&self, phase: Phase) -> bool {
        self.slot(phase).is_some_and(|(_, learned)| learned)
    }

    fn slot(&self, phase: Phase) -> Option<(Duration, bool)> {
        let index = Phase::WORKING
            .iter()
            .position(|working| *working == phase)?;
        self.phases.get(index).copied()
    }
}

fn key(kind: RunKind<'_>) -> String {
    format!(
        "{} {}",
        if kind.cached { "cached" } else { "cold" },
        kind.image
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(cached: bool) -> RunKind<'static> {
        RunKind {
            image: "python",
            cached,
        }
    }

    fn run(pull_s: u64) -> [Duration; 5] {
        [0, pull_s, 0, 0, 1].map(Duration::from_secs)
    }

    #[test]
    fn the_newest_run_weighs_three_tenths() {
        let mut history = History::default();
        history.learn(python(false), run(10));
        history.learn(python(false), run(20));
        let pull = history.expected(python(false)).of(Phase::PullingImage);
        assert_eq!(pull, Duration::from_secs(13));
    }

    #[test]
    fn cold_and_cached_pulls_are_kept_apart() {
        let mut history = History::default();
        history.learn(python(false), run(10));
        assert_eq!(
            history.expected(python(true)).of(Phase::PullingImage),
            Duration::ZERO
        );
        history.learn(python(true), run(0));
        assert_eq!(
            history.expected(python(false)).of(Phase::PullingImage),
            Duration::from_secs(10)
        );
    }

    #[test]
    fn another_image_learns_how_this_engine_starts_but_not_how_long_a_pull_takes() {
        let mut history = History::default();
        history.learn(python(false), run(10));
        let node = history.expected(RunKind {
            image: "node",
            cached: false,
        });
        assert_eq!(node.of(Phase::StartingContainer), Duration::from_secs(1));
        assert_eq!(node.of(Phase::PullingImage), Duration::from_secs(30));
        assert!(!node.is_learned(Phase::PullingImage));
    }

    #[test]
    fn history_stays_small_and_keeps_what_was_used_last() {
        let mut history = History::default();
        for image in 0..2 * MAX_IMAGES {
            let image = format!("image-{image}");
            history.learn(
                RunKind {
                    image: &image,
                    cached: false,
                },
                run(1),
            );
        }
        assert_eq!(history.averages.len(), MAX_IMAGES);
        let last = format!("cold image-{}", 2 * MAX_IMAGES - 1);
        assert!(history.averages.contains_key(&last));
        assert!(history.averages.contains_key("cold *"));
    }

    #[test]
    fn history_survives_being_written_and_read() {
        let mut history = History::default();
        history.learn(python(false), run(10));
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }
}
