//! What is made of pulls that engines really did (`core/tests/pulls`), told second by second.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::calls::pull_message;
use super::wording;
use crate::engine::{LayerSize, PullDialect};
use crate::error::ImageReason;
use crate::estimate::{Estimator, History, ImageSource, PullTracker, PullView, RunKind};
use crate::progress::{Eta, Phase, PullProgress};

/// A recorded answer to a pull.
struct Recording {
    dialect: PullDialect,
    status: u16,
    sizes: Vec<LayerSize>,
    messages: Vec<(Duration, Value)>,
}

/// What was told at a moment of a replay.
struct Moment {
    at: Duration,
    percent: f64,
    eta: Eta,
    pull: PullProgress,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pulls")
}

fn read(name: &str) -> Recording {
    let text = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
    let header = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("# "));
        lines
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim()
    };
    // In the manifest's order, which a map of JSON would not keep.
    let sizes = header("sizes:").trim_matches(['{', '}']).split(',');
    let sizes = sizes.filter_map(|entry| {
        let (digest, bytes) = entry.split_once(':')?;
        Some(LayerSize {
            digest: digest.trim().trim_matches('"').to_owned(),
            bytes: bytes.trim().parse().unwrap(),
        })
    });
    let messages = text.lines().filter(|line| !line.starts_with('#'));
    let messages = messages.map(|line| {
        let (at, message) = line.split_once('\t').unwrap();
        (
            Duration::from_millis(at.parse().unwrap()),
            serde_json::from_str(message).unwrap(),
        )
    });
    Recording {
        dialect: if header("engine:").starts_with("Podman") {
            PullDialect::AsTheyCome
        } else {
            PullDialect::AtOnce
        },
        status: header("answer:").parse().unwrap(),
        sizes: sizes.collect(),
        messages: messages.collect(),
    }
}

/// Plays a recording to a run that knows nothing of earlier ones. With the manifest, the registry
/// tells it a tenth of a second after the first layer.
fn replay(recording: &Recording, with_manifest: bool) -> (Vec<Moment>, PullTracker) {
    let kind = RunKind {
        engine: "engine".to_owned(),
        registry: "registry.test".to_owned(),
        image: "image".to_owned(),
        source: ImageSource::Registry,
    };
    let mut run = Estimator::default();
    run.expect(History::default().usual(&kind));
    run.enter(Phase::PullingImage, Duration::ZERO);
    let mut tracker = PullTracker::new(recording.dialect);
    let mut moments = Vec::new();
    let mut manifest_at = None;
    let mut tick = Duration::ZERO;
    let mut tell_until = |until: Duration, tracker: &PullTracker| {
        while tick <= until {
            let view = PullView {
                tracker,
                at: tick,
                joined: false,
            };
            let progress = run.progress(tick, Some(view));
            moments.push(Moment {
                at: tick,
                percent: progress.percent,
                eta: progress.eta,
                pull: progress.pull.unwrap(),
            });
            tick += Duration::from_millis(250);
        }
    };
    let mut end = Duration::ZERO;
    for (at, message) in &recording.messages {
        let message: Value = message.clone();
        end = *at;
        tell_until(*at, &tracker);
        if message.get("error").is_some() || message.get("message").is_some() {
            return (moments, tracker);
        }
        if with_manifest && manifest_at.is_some_and(|due| due <= *at) {
            tracker.learn_manifest(recording.sizes.clone());
            manifest_at = Some(Duration::MAX);
        }
        if let Some(message) = pull_message(serde_json::from_value(message).unwrap()) {
            tracker.take(&message, *at);
            manifest_at.get_or_insert(*at + Duration::from_millis(100));
        }
    }
    tracker.finish(end);
    tell_until(end + Duration::from_millis(250), &tracker);
    (moments, tracker)
}

fn write(moments: &[Moment]) -> String {
    let mut text = String::new();
    for moment in moments.iter().step_by(4).chain(moments.last()) {
        let Moment {
            at,
            percent,
            eta,
            pull,
        } = moment;
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        let eta = match eta {
            Eta::Calculating => "calculating".to_owned(),
            Eta::Point { ms } => format!("{:.1} s", seconds(*ms)),
            Eta::Range { low_ms, high_ms } => {
                format!("{:.1} – {:.1} s", seconds(*low_ms), seconds(*high_ms))
            }
            Eta::Stalled { idle_ms, layer } => format!(
                "stalled {:.0} s, {}",
                seconds(*idle_ms),
                layer.as_deref().unwrap_or("–")
            ),
        };
        let kb = |bytes: u64| bytes.div_ceil(1_000);
        let line = format!(
            "{:5.1} s  {percent:4.1} %  {eta:26} {:6} of {}{:6} kB  {:6} extracted  {:2} of {:2} layers",
            at.as_secs_f64(),
            kb(pull.downloaded_bytes),
            if pull.total_is_exact { ' ' } else { '≥' },
            kb(pull.total_bytes),
            kb(pull.extracted_bytes),
            pull.layers_done,
            pull.layers_total,
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Compares a replay with its transcript, and checks what holds for every pull.
fn check(name: &str) {
    let recording = read(name);
    for with_manifest in [true, false] {
        let (moments, tracker) = replay(&recording, with_manifest);
        for pair in moments.windows(2) {
            let [before, after] = pair else { continue };
            assert!(
                after.percent >= before.percent,
                "{name} falls at {:?}",
                after.at
            );
        }
        let last = moments.last().unwrap();
        let known: u64 = recording.sizes.iter().map(|size| size.bytes).sum();
        for Moment { at, pull, .. } in &moments {
            assert!(pull.total_bytes <= known, "{name} at {at:?}: {pull:?}");
            assert!(pull.downloaded_bytes <= known, "{name} at {at:?}: {pull:?}");
            // What is called exact stays so, but for layers that turn out to be there already.
            let is_right = !pull.total_is_exact || pull.total_bytes >= last.pull.total_bytes;
            assert!(
                is_right,
                "{name} at {at:?}: {pull:?}, at last {:?}",
                last.pull
            );
        }
        let error = recording.messages.last().and_then(|(_, message)| {
            let text = message.get("error").or(message.get("message"))?;
            text.as_str()
        });
        if let Some(error) = error {
            let reason = wording::pull_failure(Some(recording.status), error);
            assert!(reason.is_some(), "{error}");
        } else {
            assert!((last.pull.fraction - 1.0).abs() < 1e-9, "{name}");
            assert!(last.pull.total_is_exact, "{name}");
            assert_eq!(last.pull.layers_done, last.pull.layers_total, "{name}");
            assert_eq!(last.pull.extracted_bytes, last.pull.total_bytes, "{name}");
            assert!(!tracker.lacks_sizes() || !with_manifest, "{name}");
        }
        let kind = if with_manifest { "manifest" } else { "alone" };
        insta::with_settings!({
            snapshot_path => folder().join("told"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(format!("{name}-{kind}"), write(&moments));
        });
    }
}

/// One test for each recording, so that each fails by itself.
macro_rules! recordings {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*

        #[test]
        fn every_recording_is_replayed() {
            let mut replayed = [$($name),*];
            replayed.sort_unstable();
            let mut found: Vec<_> = fs::read_dir(folder())
                .unwrap()
                .filter_map(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    Some(name.strip_suffix(".txt")?.to_owned())
                })
                .collect();
            found.sort_unstable();
            assert_eq!(found, replayed);
        }
    };
}

recordings! {
    docker_cold: "docker-cold",
    docker_partly_cached: "docker-partly-cached",
    docker_cached_elsewhere: "docker-cached-elsewhere",
    docker_all_layers_cached: "docker-all-layers-cached",
    docker_nothing_to_do: "docker-nothing-to-do",
    docker_throttled: "docker-throttled",
    docker_variable: "docker-variable",
    docker_retry: "docker-retry",
    docker_cut: "docker-cut",
    docker_tiny_layers: "docker-tiny-layers",
    docker_repeated_layer: "docker-repeated-layer",
    docker_two_at_once_a: "docker-two-at-once-a",
    docker_two_at_once_b: "docker-two-at-once-b",
    docker_heavy_extraction: "docker-heavy-extraction",
    docker_not_found: "docker-not-found",
    podman_cold: "podman-cold",
    podman_partly_cached: "podman-partly-cached",
    podman_throttled: "podman-throttled",
    podman_heavy_extraction: "podman-heavy-extraction",
    podman_nothing_to_do: "podman-nothing-to-do",
    podman_cut: "podman-cut",
    podman_two_at_once_a: "podman-two-at-once-a",
    podman_two_at_once_b: "podman-two-at-once-b",
    podman_not_found: "podman-not-found",
    containerd_store_cold: "containerd-store-cold",
    containerd_store_cached: "containerd-store-cached",
    containerd_transfer_cold: "containerd-transfer-cold",
    podman5_cold: "podman5-cold",
    podman5_not_found: "podman5-not-found",
}

#[test]
fn a_missing_tag_is_told_as_such_by_every_engine() {
    for name in ["docker-not-found", "podman-not-found", "podman5-not-found"] {
        let recording = read(name);
        let (_, message) = recording.messages.last().unwrap();
        let text = message.get("error").or(message.get("message")).unwrap();
        let reason = wording::pull_failure(Some(recording.status), text.as_str().unwrap());
        assert_eq!(reason, Some(ImageReason::NotFound), "{name}");
    }
}

#[test]
fn a_layer_that_is_resumed_after_a_cut_keeps_what_it_has_and_its_size() {
    let recording = read("docker-retry");
    let (moments, _) = replay(&recording, false);
    let bytes: Vec<_> = moments
        .iter()
        .map(|moment| moment.pull.downloaded_bytes)
        .collect();
    assert!(bytes.is_sorted(), "{bytes:?}");
    let while_waiting = moments
        .iter()
        .find(|moment| moment.at == Duration::from_secs(5))
        .unwrap();
    let total: u64 = recording.sizes.iter().map(|size| size.bytes).sum();
    assert!(while_waiting.pull.downloaded_bytes < total / 2);
    assert!(matches!(while_waiting.eta, Eta::Stalled { .. }));
    assert_eq!(while_waiting.pull.total_bytes, total);
}
