//! Pulls in virtual time: an image that is drawn, over a line that is drawn, told in Docker's words. What comes out is a
//! trace like that of a real run, in a millisecond instead of a minute, and what a perfect forecaster may know of it.

use cove_core::engine::{LayerStep, PullMessage};
use cove_core::event::Phase;
use serde_json::{Map, Value};

use crate::dice::{Dice, Range};
use crate::lines::{Line, Population, STEP_S, as_f64};
use crate::trace::{Link, Manifest, Message, Pass, PhaseStart, Told, Trace};

/// Layers that are downloaded at once.
pub(crate) const SLOTS: usize = 3;
/// Layers of an image.
const LAYERS: Range = Range(3.0, 12.0);
/// The standard deviation of the logarithm of a layer's share of the image.
const LAYER_DEVIATION: f64 = 1.3;
/// Seconds from the pull's begin to the first byte.
const WAITING_S: Range = Range(0.1, 0.6);
/// Compressed bytes that an engine extracts in a second.
pub(crate) const EXTRACTION: Range = Range(25e6, 120e6);
/// The standard deviation of the logarithm of a layer's extraction beside that of the engine: it is worth more or less
/// when it is unpacked.
pub(crate) const EXTRACTION_DEVIATION: f64 = 0.4;
/// Seconds of extraction for a layer of any size.
pub(crate) const EXTRACTION_OF_LAYER_S: f64 = 0.06;
/// Seconds between two looks at what has happened.
const TICK_S: f64 = 0.05;
/// Ticks between two words on a layer, and between two events.
const TICKS_PER_MESSAGE: usize = 3;
const TICKS_PER_EVENT: usize = 5;
/// Seconds of the phases before and after the pull.
const STARTING_S: f64 = 0.03;
pub(crate) const AFTERWARDS_S: [Range; 3] = [Range(0.005, 0.02), Range(0.05, 0.3), Range(0.2, 0.9)];
/// Ticks after which a pull is given up: five minutes.
const MOST_TICKS: usize = 6_000;

/// An image and the engine that pulls it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    name: String,
    pub(crate) layers: Vec<ImageLayer>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageLayer {
    pub(crate) bytes: f64,
    pub(crate) extraction_s: f64,
}

/// A pull at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// Seconds since the line's first byte; negative before.
    pub(crate) on_line: f64,
    /// Bytes to download, and the share that is extracted, of each layer.
    pub(crate) layers: Vec<(f64, f64)>,
}

/// A pull that was simulated.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) trace: Trace,
    pub(crate) image: Image,
    /// The speed of each of the line's steps.
    pub(crate) speeds: Vec<f64>,
    /// At each event within the pull.
    pub(crate) snapshots: Vec<Snapshot>,
}

/// How fast an engine is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine {
    /// Seconds to extract a byte.
    per_byte: f64,
    /// Seconds of each phase after the pull.
    pub(crate) afterwards: [f64; 3],
}

impl Engine {
    /// Draws an engine.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            per_byte: 1.0 / dice.log_between(EXTRACTION),
            afterwards: AFTERWARDS_S.map(|range| dice.log_between(range)),
        }
    }
}

impl Image {
    /// Draws an image.
    pub(crate) fn draw(
        name: &str,
        population: &Population,
        engine: &Engine,
        dice: &mut Dice,
    ) -> Self {
        let count = dice.between(LAYERS);
        let bytes = dice.log_between(population.bytes);
        let mut weights = Vec::new();
        while as_f64(weights.len()) < count {
            weights.push((LAYER_DEVIATION * dice.normal()).exp());
        }
        let sum: f64 = weights.iter().sum();
        let mut layer = |weight: f64| {
            let bytes = (bytes * weight / sum).max(200.0).round();
            let factor = (EXTRACTION_DEVIATION * dice.normal()).exp();
            ImageLayer {
                bytes,
                extraction_s: EXTRACTION_OF_LAYER_S + bytes * engine.per_byte * factor,
            }
        };
        Self {
            name: name.to_owned(),
            layers: weights.into_iter().map(&mut layer).collect(),
        }
    }

    fn id_of(&self, layer: usize) -> String {
        format!(
            "{:012x}",
            crate::images::hash(&format!("{} {layer}", self.name)) >> 16
        )
    }
}

/// A layer on its way.
#[derive(Debug, Clone, Copy)]
struct Way {
    bytes: f64,
    left: f64,
    extraction_s: f64,
    extracted_s: f64,
    /// Whether what the engine says of it has changed since it was last said.
    begun: bool,
    downloaded: bool,
    done: bool,
}

impl Simulated {
    /// Pulls the image over a line.
    pub(crate) fn pull(
        image: &Image,
        engine: &Engine,
        over: Line,
        link: Link,
        pass: Pass,
        dice: &mut Dice,
    ) -> Self {
        let speeds = over.speeds(dice);
        let waiting = dice.between(WAITING_S);
        let mut ways: Vec<_> = image.layers.iter().map(Way::of).collect();
        let ids: Vec<_> = (0..ways.len()).map(|layer| image.id_of(layer)).collect();
        let mut tape = Tape::default();
        for id in &ids {
            tape.say(STARTING_S, id, LayerStep::Announced);
        }
        tape.tell(0.0, Phase::Starting);
        tape.tell(STARTING_S, Phase::PullingImage);
        let mut snapshots = Vec::new();
        for tick in 1..MOST_TICKS {
            let in_pull = as_f64(tick) * TICK_S;
            let at = STARTING_S + in_pull;
            let on_line = in_pull - waiting;
            if on_line > 0.0 {
                let bytes = carried(&speeds, on_line - TICK_S.min(on_line), on_line);
                download(&mut ways, bytes);
            }
            extract(&mut ways, TICK_S);
            for ((way, before), id) in ways.iter_mut().zip(&image.layers).zip(&ids) {
                way.say(
                    before.bytes,
                    id,
                    at,
                    tick.is_multiple_of(TICKS_PER_MESSAGE),
                    &mut tape,
                );
            }
            if ways.iter().all(|way| way.done) {
                break;
            }
            if tick.is_multiple_of(TICKS_PER_EVENT) {
                tape.tell(at, Phase::PullingImage);
                snapshots.push(Snapshot {
                    at,
                    on_line,
                    layers: ways
                        .iter()
                        .map(|way| (way.left, way.extracted_s / way.extraction_s))
                        .collect(),
                });
            }
        }
        let trace = tape.into_trace(image, engine, over, link, pass);
        Self {
            trace,
            image: image.clone(),
            speeds,
            snapshots,
        }
    }
}

/// Returns the bytes that a line carries between two times since its first byte.
fn carried(speeds: &[f64], from: f64, to: f64) -> f64 {
    let mut bytes = 0.0;
    let mut at = from;
    while at < to {
        let step = crate::lines::index_of(at / STEP_S);
        let end = (as_f64(step + 1) * STEP_S).min(to);
        let speed = speeds.get(step).or(speeds.last()).copied().unwrap_or(1.0);
        bytes += speed * (end - at);
        // Rounding must not hold the time where it is.
        at = end.max(at + 1e-9);
    }
    bytes
}

/// Shares bytes evenly among the layers that are being downloaded.
fn download(ways: &mut [Way], mut bytes: f64) {
    while bytes > 1e-6 {
        let active = || ways.iter().filter(|way| way.left > 0.0).take(SLOTS);
        let count = active().count();
        let Some(least) = active().map(|way| way.left).reduce(f64::min) else {
            return;
        };
        let each = least.min(bytes / as_f64(count));
        for way in ways.iter_mut().filter(|way| way.left > 0.0).take(SLOTS) {
            way.left = if way.left - each < 0.5 {
                0.0
            } else {
                way.left - each
            };
            way.begun = true;
            bytes -= each;
        }
    }
}

/// Extracts for so many seconds, one layer at a time, in order.
fn extract(ways: &mut [Way], mut seconds: f64) {
    for way in ways {
        if way.left > 0.0 {
            return;
        }
        let took = seconds.min(way.extraction_s - way.extracted_s);
        way.extracted_s += took;
        seconds -= took;
        if way.extracted_s < way.extraction_s - 1e-9 {
            return;
        }
    }
}

impl Way {
    fn of(layer: &ImageLayer) -> Self {
        Self {
            bytes: layer.bytes,
            left: layer.bytes,
            extraction_s: layer.extraction_s,
            extracted_s: 0.0,
            begun: false,
            downloaded: false,
            done: false,
        }
    }

    /// Says what has become of the layer; figures that only grow are said when it is `time` for that.
    fn say(&mut self, bytes: f64, id: &str, at: f64, time: bool, tape: &mut Tape) {
        let total = Some(whole(bytes));
        if self.done {
            return;
        }
        if self.left > 0.0 {
            if self.begun && time {
                let current = whole(self.bytes - self.left);
                tape.say(at, id, LayerStep::Downloading { current, total });
                self.begun = false;
            }
            return;
        }
        if !self.downloaded {
            self.downloaded = true;
            let current = whole(bytes);
            tape.say(at, id, LayerStep::Downloading { current, total });
            tape.say(at, id, LayerStep::Downloaded);
        }
        let share = self.extracted_s / self.extraction_s;
        if share >= 1.0 - 1e-9 {
            self.done = true;
            tape.say(at, id, LayerStep::Done);
        } else if share > 0.0 && time {
            let current = whole(share * bytes);
            tape.say(at, id, LayerStep::Extracting { current, total });
        }
    }
}

/// What is heard of a run.
#[derive(Debug, Default)]
struct Tape {
    messages: Vec<Message>,
    events: Vec<Told>,
}

impl Tape {
    fn say(&mut self, at: f64, layer: &str, step: LayerStep) {
        self.messages.push(Message {
            at_ms: at * 1e3,
            said: PullMessage {
                layer: layer.to_owned(),
                step,
            },
        });
    }

    fn tell(&mut self, at: f64, phase: Phase) {
        self.events.push(Told {
            at_ms: at * 1e3,
            phase,
            message: String::new(),
            progress: Map::new(),
        });
    }

    fn into_trace(
        mut self,
        image: &Image,
        engine: &Engine,
        over: Line,
        link: Link,
        pass: Pass,
    ) -> Trace {
        let pulled_ms = self.messages.last().map_or(0.0, |message| message.at_ms);
        let mut phases = vec![
            PhaseStart {
                phase: Phase::Starting,
                at_ms: 0.0,
            },
            PhaseStart {
                phase: Phase::PullingImage,
                at_ms: STARTING_S * 1e3,
            },
        ];
        let mut at_ms = pulled_ms + 1.0;
        for (phase, seconds) in Phase::WORKING.into_iter().skip(2).zip(engine.afterwards) {
            phases.push(PhaseStart { phase, at_ms });
            self.tell(at_ms / 1e3, phase);
            at_ms += seconds * 1e3;
        }
        let layers = image.layers.iter().enumerate();
        let layers = layers.map(|(place, layer)| (image.id_of(place), whole(layer.bytes)));
        Trace {
            format: Trace::FORMAT,
            link,
            pass,
            image: image.name.clone(),
            engine: "unix:///engine.sock".to_owned(),
            reference: format!("registry.test/{}:latest", image.name),
            seed: 0,
            bytes_per_second: over.speed,
            packed_bytes: 0,
            total_ms: at_ms,
            manifest: Some(Manifest {
                at_ms: STARTING_S * 1e3 + 80.0,
                layers: layers.collect(),
            }),
            messages: self.messages,
            events: self.events,
            phases,
            calls: Vec::new(),
            ready: Value::Null,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of an image, and the cast saturates"
)]
fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}
