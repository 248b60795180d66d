//! Tells a recorded run again, by the estimator as it is now: to learn from it, and to see what a change makes of runs
//! that are on record.

use std::time::Duration;

use cove_core::engine::{LayerSize, PullDialect};
use cove_core::estimate::{
    Cell, Estimator, History, ImageSource, PullTracker, PullView, RunKind, RunSample, score,
};
use cove_core::event::Phase;
use serde_json::{Map, Value};

use crate::trace::{Told, Trace};

/// Hears the score of each forecast.
pub(crate) type Scored<'a> = &'a mut dyn FnMut(Cell, f64);

/// Something that happened in a run.
enum Happening<'a> {
    Enters(Phase),
    Said(&'a cove_core::engine::PullMessage),
    Listed(Vec<LayerSize>),
    Tells(&'a Told),
}

/// Adds to the history what a run teaches.
pub(crate) fn learn(history: &mut History, trace: &Trace, sample: RunSample) {
    history.learn(&kind(trace), sample);
}

/// Returns the events of a run with the figures that the present estimator gives at their times, and what the run
/// teaches.
pub(crate) fn retell(trace: &Trace, history: &History) -> (Vec<Told>, RunSample) {
    retell_with(trace, history, &mut None)
}

/// Does the same, and hands over each score of a forecast within the pull, with what its width depends on.
pub(crate) fn retell_with(
    trace: &Trace,
    history: &History,
    scored: &mut Option<Scored<'_>>,
) -> (Vec<Told>, RunSample) {
    let usual = history.usual(&kind(trace));
    let mut tracker = PullTracker::new(PullDialect::AtOnce);
    if let Some(pull) = &usual.pull {
        tracker.remember(pull.sizes());
    }
    let pull_began = trace.start_of(Phase::PullingImage);
    let mut usual = Some(usual);
    let mut run = Estimator::default();
    let mut told = Vec::new();
    for (at_ms, happening) in happenings(trace) {
        let at = milliseconds(at_ms);
        let in_pull = milliseconds(at_ms - pull_began);
        match happening {
            Happening::Enters(phase) => {
                if let Some(usual) = usual.take_if(|_| phase == Phase::PullingImage) {
                    run.expect(usual);
                }
                if phase == Phase::CreatingVolume {
                    tracker.finish(in_pull);
                }
                run.enter(phase, at);
            }
            Happening::Said(message) => {
                tracker.take(message, in_pull);
            }
            Happening::Listed(layers) => tracker.learn_manifest(layers),
            Happening::Tells(event) => {
                let view = PullView {
                    tracker: &tracker,
                    at: in_pull,
                    joined: false,
                };
                let is_pulled = event.phase >= Phase::PullingImage;
                if let Some(scored) = scored
                    && event.phase == Phase::PullingImage
                    && let Some(usual) = run.pull_usual()
                    && let Some(forecast) = run.forecast(at, Some(view))
                {
                    let truth = (trace.total_ms - at_ms) / 1e3;
                    scored(tracker.cell(usual), score(forecast, truth));
                }
                let progress = run.progress(at, is_pulled.then_some(view));
                let progress = match serde_json::to_value(progress) {
                    Ok(Value::Object(progress)) => progress,
                    Ok(_) | Err(_) => Map::new(),
                };
                told.push(Told {
                    progress,
                    ..event.clone()
                });
            }
        }
    }
    let end = milliseconds(trace.total_ms);
    run.enter(Phase::Ready, end);
    let view = PullView {
        tracker: &tracker,
        at: milliseconds(trace.total_ms - pull_began),
        joined: false,
    };
    let sample = run.sample(Some(view));
    (told, sample)
}

/// Returns all that happened, in order of time.
fn happenings(trace: &Trace) -> Vec<(f64, Happening<'_>)> {
    let phases = trace.phases.iter().skip(1);
    let mut all: Vec<_> = phases
        .map(|start| (start.at_ms, Happening::Enters(start.phase)))
        .collect();
    let messages = trace.messages.iter();
    all.extend(messages.map(|message| (message.at_ms, Happening::Said(&message.said))));
    if let Some(manifest) = &trace.manifest {
        let layers = manifest.layers.iter().map(|(digest, bytes)| LayerSize {
            digest: digest.clone(),
            bytes: *bytes,
        });
        all.push((manifest.at_ms, Happening::Listed(layers.collect())));
    }
    let events = trace.events.iter();
    all.extend(events.map(|event| (event.at_ms, Happening::Tells(event))));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

fn kind(trace: &Trace) -> RunKind {
    let registry = trace.reference.split('/').next().unwrap_or_default();
    RunKind {
        engine: trace.engine.clone(),
        registry: registry.to_owned(),
        image: trace.reference.clone(),
        source: ImageSource::Registry,
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1e3)
}
