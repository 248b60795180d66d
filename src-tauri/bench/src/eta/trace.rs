//! What a run left to be looked at later: everything that the engine said of the pull and everything that Cove told,
//! each with its time. One JSON file a run; all of the evaluation can be done again from them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cove_core::engine::{LayerStep, PullMessage};
use cove_core::event::{Eta, Phase};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Raised when a reader of the files would misunderstand them.
const FORMAT: u32 = 2;

/// One run. Times are milliseconds since the press, which is the call of `create`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub(crate) format: u32,
    pub(crate) link: Link,
    pub(crate) pass: Pass,
    /// The image's name in the bench.
    pub(crate) image: String,
    /// The address of the engine.
    pub(crate) engine: String,
    /// The reference that it was pulled by.
    pub(crate) reference: String,
    /// Decides what the link did.
    pub(crate) seed: u64,
    /// The link's mean speed while it moved.
    pub(crate) bytes_per_second: f64,
    /// What a registry holds of the image's layers.
    pub(crate) packed_bytes: u64,
    /// When the session was ready.
    pub(crate) total_ms: f64,
    pub(crate) phases: Vec<PhaseStart>,
    pub(crate) messages: Vec<Message>,
    /// What the registry said of the image's layers, when Cove asked it.
    pub(crate) manifest: Option<Manifest>,
    /// Every progress event.
    pub(crate) events: Vec<Told>,
    /// Every call to the engine.
    pub(crate) calls: Vec<Call>,
    /// The terminal event as it was told.
    pub(crate) ready: Value,
}

/// The layers of an image as its registry lists them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) at_ms: f64,
    /// Digests and bytes.
    pub(crate) layers: Vec<(String, u64)>,
}

/// What kind of link a run had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Link {
    Steady,
    Ramping,
    Bursty,
    Stalling,
    /// As fast as it goes: only what estimation costs is measured on it.
    Free,
}

/// What a run could know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pass {
    /// Nothing: the history was empty.
    FirstRun,
    /// What all runs before it on the same link have left; the link has another speed now.
    WithHistory,
}

/// When a phase began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseStart {
    pub(crate) phase: Phase,
    pub(crate) at_ms: f64,
}

/// What the engine said of a layer, written as `[at_ms, layer, step, current, total]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub(crate) struct Message {
    pub(crate) at_ms: f64,
    pub(crate) said: PullMessage,
}

type Row = (f64, String, Step, u64, u64);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Announced,
    Downloading,
    Retrying,
    Downloaded,
    Extracting,
    Done,
    Existing,
}

/// A progress event: its phase, its message, and all its figures as they were serialised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) at_ms: f64,
    pub(crate) phase: Phase,
    pub(crate) message: String,
    /// The fields of `Progress`: kept as they are, so that older files stay readable when it gets more of them.
    #[serde(flatten)]
    pub(crate) progress: Map<String, Value>,
}

/// A call to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) begin_ms: f64,
    pub(crate) end_ms: f64,
}

impl Trace {
    /// Writes the trace to a file of its own in the folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!(
            "{}-{}-{}.json",
            self.link.name(),
            self.pass.name(),
            self.image
        ));
        let text = serde_json::to_vec(self).context("failed to write a trace")?;
        fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))
    }

    /// Reads every trace of a folder, in the order in which the runs were made.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let failed = |path: &Path| format!("failed to read `{}`", path.display());
        let mut traces = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| failed(folder))? {
            let path = entry.with_context(|| failed(folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read(&path).with_context(|| failed(&path))?;
            let trace: Self = serde_json::from_slice(&text).with_context(|| failed(&path))?;
            ensure!(
                trace.format == FORMAT,
                "`{}` has format {}, this bench reads {FORMAT}",
                path.display(),
                trace.format
            );
            traces.push(trace);
        }
        traces.sort_by(|a, b| {
            (a.link, a.pass, a.packed_bytes, &a.image).cmp(&(
                b.link,
                b.pass,
                b.packed_bytes,
                &b.image,
            ))
        });
        ensure!(!traces.is_empty(), "`{}` has no traces", folder.display());
        Ok(traces)
    }

    pub(crate) const FORMAT: u32 = FORMAT;

    /// Returns when a phase began.
    pub(crate) fn start_of(&self, phase: Phase) -> f64 {
        self.phases
            .iter()
            .find(|start| start.phase == phase)
            .map_or(self.total_ms, |start| start.at_ms)
    }

    /// Returns how long a phase took.
    pub(crate) fn duration_of(&self, phase: Phase) -> f64 {
        let mut starts = self
            .phases
            .iter()
            .skip_while(|start| start.phase != phase)
            .map(|start| start.at_ms);
        starts
            .next()
            .map_or(0.0, |start| starts.next().unwrap_or(self.total_ms) - start)
    }
}

impl Told {
    /// Returns the percent.
    pub(crate) fn percent(&self) -> f64 {
        self.number("percent").unwrap_or_default()
    }

    /// Returns the milliseconds left, as told.
    pub(crate) fn eta_ms(&self) -> Option<f64> {
        self.number("eta_ms")
    }

    /// Returns the bounds within which the remaining milliseconds are to be eight times in ten. This is the one
    /// place that knows where they are told.
    pub(crate) fn range_ms(&self) -> Option<(f64, f64)> {
        Some((self.number("eta_low_ms")?, self.number("eta_high_ms")?))
    }

    /// Returns whether the run was said to stand still.
    pub(crate) fn is_stalled(&self) -> bool {
        let eta = self.progress.get("eta").cloned().unwrap_or_default();
        matches!(serde_json::from_value(eta), Ok(Eta::Stalled { .. }))
    }

    /// Returns a figure of the pull.
    pub(crate) fn pull(&self, name: &str) -> Option<f64> {
        self.progress.get("pull")?.get(name)?.as_f64()
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.progress.get(name)?.as_f64()
    }
}

impl Link {
    /// Those that predictions are judged on.
    pub(crate) const JUDGED: [Self; 4] =
        [Self::Steady, Self::Ramping, Self::Bursty, Self::Stalling];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Ramping => "ramping",
            Self::Bursty => "bursty",
            Self::Stalling => "stalling",
            Self::Free => "free",
        }
    }
}

impl Pass {
    pub(crate) const ALL: [Self; 2] = [Self::FirstRun, Self::WithHistory];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FirstRun => "first_run",
            Self::WithHistory => "with_history",
        }
    }
}

/// Reads a total of a row, in which 0 stands for one that was not said.
fn said(total: u64) -> Option<u64> {
    Some(total).filter(|total| *total > 0)
}

impl From<Row> for Message {
    fn from((at_ms, layer, step, current, total): Row) -> Self {
        let step = match step {
            Step::Announced => LayerStep::Announced,
            Step::Downloading => LayerStep::Downloading {
                current,
                total: said(total),
            },
            Step::Retrying => LayerStep::Retrying,
            Step::Downloaded => LayerStep::Downloaded,
            Step::Extracting => LayerStep::Extracting {
                current,
                total: said(total),
            },
            Step::Done => LayerStep::Done,
            Step::Existing => LayerStep::Existing,
        };
        Self {
            at_ms,
            said: PullMessage { layer, step },
        }
    }
}

impl From<Message> for Row {
    fn from(message: Message) -> Self {
        let (step, current, total) = match message.said.step {
            LayerStep::Announced => (Step::Announced, 0, 0),
            LayerStep::Downloading { current, total } => {
                (Step::Downloading, current, total.unwrap_or_default())
            }
            LayerStep::Retrying => (Step::Retrying, 0, 0),
            LayerStep::Downloaded => (Step::Downloaded, 0, 0),
            LayerStep::Extracting { current, total } => {
                (Step::Extracting, current, total.unwrap_or_default())
            }
            LayerStep::Done => (Step::Done, 0, 0),
            LayerStep::Existing => (Step::Existing, 0, 0),
        };
        (message.at_ms, message.said.layer, step, current, total)
    }
}

/// Small traces to test with.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    pub(crate) const fn downloading(current: u64, total: u64) -> LayerStep {
        LayerStep::Downloading {
            current,
            total: Some(total),
        }
    }

    pub(crate) const fn extracting(current: u64, total: u64) -> LayerStep {
        LayerStep::Extracting {
            current,
            total: Some(total),
        }
    }

    /// Returns a first run on a steady link, with these starts of its phases and an event at each of these times.
    pub(crate) fn trace(
        starts: [f64; 5],
        total_ms: f64,
        messages: &[(f64, &str, LayerStep)],
        events: &[f64],
    ) -> Trace {
        let phases = Phase::WORKING.into_iter().zip(starts);
        let phases = phases.map(|(phase, at_ms)| PhaseStart { phase, at_ms });
        let phases: Vec<_> = phases.collect();
        let messages = messages.iter().map(|(at_ms, layer, step)| Message {
            at_ms: *at_ms,
            said: PullMessage {
                layer: (*layer).to_owned(),
                step: *step,
            },
        });
        let phase_at = |at_ms: f64| {
            let begun = phases.iter().rev().find(|start| start.at_ms <= at_ms);
            begun.unwrap().phase
        };
        let events = events.iter().map(|at_ms| Told {
            at_ms: *at_ms,
            phase: phase_at(*at_ms),
            message: String::new(),
            progress: Map::new(),
        });
        Trace {
            format: FORMAT,
            link: Link::Steady,
            pass: Pass::FirstRun,
            image: "image".to_owned(),
            engine: "unix:///engine.sock".to_owned(),
            reference: "127.0.0.1:1/image:latest".to_owned(),
            seed: 0,
            bytes_per_second: 1e6,
            packed_bytes: 0,
            total_ms,
            messages: messages.collect(),
            manifest: None,
            events: events.collect(),
            phases: phases.clone(),
            calls: Vec::new(),
            ready: Value::Null,
        }
    }

    /// Returns an event that tells this.
    pub(crate) fn told(at_ms: f64, progress: Value) -> Told {
        let Value::Object(progress) = progress else {
            unreachable!("progress is an object")
        };
        Told {
            at_ms,
            phase: Phase::PullingImage,
            message: String::new(),
            progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_one_short_row() {
        let text = r#"[1.5,"abc","downloading",10,20]"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(
            message.said.step,
            LayerStep::Downloading {
                current: 10,
                total: Some(20)
            }
        );
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
    }

    #[test]
    fn an_event_keeps_fields_that_this_bench_does_not_know() {
        let text =
            r#"{"at_ms":1.0,"phase":"Starting","message":"","percent":3.5,"eta_ms":null,"new":7}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert_eq!((told.percent(), told.eta_ms()), (3.5, None));
        let again = serde_json::to_value(&told).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_range_is_read_from_where_it_is_told() {
        let text =
            r#"{"at_ms":1.0,"phase":"Starting","message":"","eta_low_ms":10,"eta_high_ms":20}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert_eq!(told.range_ms(), Some((10.0, 20.0)));
        assert!(!told.is_stalled());
    }
}
