//! Makes the runs: every image over every kind of link, twice, each time as if it had never been pulled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cove_core::assets::Assets;
use cove_core::engine::docker::DockerPlaces;
use cove_core::estimate::History;
use cove_core::event::{Phase, SessionEvent};
use cove_core::sessions::{Sessions, Start};
use cove_testbed::{Engine, Profile, Proxy, Registry, RegistryOptions, Shape};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::images::{self, BenchImage};
use crate::recording::{Ear, RecordedPlaces, Recorder, Tape};
use crate::retelling;
use crate::trace::{Link, Pass, PhaseStart, Told, Trace};

/// Decides every link and every day's speed.
const SEED: u64 = 20_250_101;
/// The mean speed of every link on the first day: the images then take 3 to 14 s to download.
const BYTES_PER_SECOND: f64 = 5e6;
/// How long a run may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Six images.
    Full,
    /// One image, to see whether all works.
    Quick,
}

/// An image as a registry has it.
struct Published {
    image: &'static BenchImage,
    bytes: u64,
}

/// Makes all runs and hands each over as soon as it is there.
pub(crate) fn make(extent: Extent, mut each: impl FnMut(Trace) -> Result<()>) -> Result<()> {
    let Some(engine) = Engine::from_env() else {
        bail!("run `cargo xtask bench eta`, which starts an engine");
    };
    let assets = Assets::from_folder(Path::new(&std::env::var("COVE_ASSETS")?))?;
    let registry = Registry::start(RegistryOptions::default())?;
    let chosen = match extent {
        Extent::Full => &images::ALL[..],
        Extent::Quick => images::ALL.get(3..4).unwrap_or_default(),
    };
    let mut published = Vec::new();
    for image in chosen {
        let bytes = registry.publish_image(&image.build()?, image.name, "latest")?;
        published.push(Published { image, bytes });
    }
    let bench = Bench {
        engine,
        assets,
        runtime: Runtime::new()?,
    };
    for link in Link::JUDGED {
        // A line of its own, so that what is learned of one link is not used for another: the port is part of the
        // registry's name.
        let proxy = Proxy::start(registry.address())?;
        let mut learned = History::default();
        for pass in Pass::ALL {
            for image in &published {
                let history = match pass {
                    Pass::FirstRun => History::default(),
                    Pass::WithHistory => learned.clone(),
                };
                let trace = bench.run(&proxy, image, link, pass, history.clone())?;
                let (_, sample) = retelling::retell(&trace, &history);
                retelling::learn(&mut learned, &trace, sample);
                each(trace)?;
            }
        }
    }
    if let Some(largest) = published.iter().max_by_key(|image| image.bytes) {
        let proxy = Proxy::start(registry.address())?;
        each(bench.run(
            &proxy,
            largest,
            Link::Free,
            Pass::FirstRun,
            History::default(),
        )?)?;
    }
    Ok(())
}

struct Bench {
    engine: Engine,
    assets: Assets,
    runtime: Runtime,
}

impl Bench {
    /// Makes one run.
    fn run(
        &self,
        proxy: &Proxy,
        published: &Published,
        link: Link,
        pass: Pass,
        history: History,
    ) -> Result<Trace> {
        let name = published.image.name;
        let seed = seed_of(&format!("{SEED} {} {} {name}", link.name(), pass.name()));
        let bytes_per_second = mean_speed(link, pass, seed);
        let reference = format!("{}/{name}:latest", proxy.address());
        let recorder = Recorder::new();
        let sessions = Sessions::new(Start {
            history,
            ..Start::fresh(
                Box::new(RecordedPlaces {
                    places: DockerPlaces::at(&[self.engine.host()]),
                    recorder: Arc::clone(&recorder),
                }),
                self.assets.clone(),
                Box::new(Ear(Arc::clone(&recorder))),
            )
        });

        if let Some(shape) = shape(link) {
            let busy_for = Duration::from_secs_f64(as_f64(published.bytes) / bytes_per_second);
            proxy.follow(Profile::new(shape, bytes_per_second, busy_for, seed));
        }
        let tape = self.runtime.block_on(async {
            recorder.begin();
            let id = sessions.create(&json!({ "workspace_id": "bench", "image": reference }))?;
            let tape = tokio::time::timeout(PATIENCE, recorder.end())
                .await
                .context("the run did not end")?;
            sessions.delete(id).await?;
            sessions.shutdown().await;
            anyhow::Ok(tape)
        })?;
        self.forget(&reference)?;
        let trace = Trace {
            format: Trace::FORMAT,
            link,
            pass,
            image: name.to_owned(),
            engine: self.engine.host().to_owned(),
            reference,
            seed,
            bytes_per_second,
            packed_bytes: published.bytes,
            ..read(tape)?
        };
        Ok(trace)
    }

    /// Takes the image off the engine again, so that the next pull fetches every layer.
    fn forget(&self, reference: &str) -> Result<()> {
        self.engine.remove_image(reference)?;
        self.engine.docker(&["image", "prune", "--force"])?;
        let left = self.engine.docker(&["images", "--all", "--quiet"])?;
        ensure!(left.is_empty(), "images are left on the engine: {left}");
        Ok(())
    }
}

/// Puts what was heard of a run in order; what the bench itself knows of it is left blank.
fn read(tape: Tape) -> Result<Trace> {
    let mut events = Vec::new();
    let mut end = None;
    for (at_ms, event) in tape.events {
        match event {
            SessionEvent::Progress(event) => {
                let Value::Object(progress) = serde_json::to_value(&event.progress)? else {
                    bail!("progress is no object");
                };
                events.push(Told {
                    at_ms,
                    phase: event.phase,
                    message: event.message,
                    progress,
                });
            }
            SessionEvent::Ready(event) => end = Some((at_ms, event)),
            SessionEvent::Failed(event) => bail!("a run failed: {}", event.error.message),
            SessionEvent::Cancelled(_) => bail!("a run was cancelled"),
            SessionEvent::Export(_) => bail!("nobody asked for an export"),
            SessionEvent::Changed(_) | SessionEvent::Transfer(_) => {}
        }
    }
    let (total_ms, ready) = end.context("a run ended without being ready")?;
    // Cove's own time begins when the run does, a moment after the press.
    let elapsed = |told: &Told| Some(told.at_ms - told.progress.get("elapsed_ms")?.as_f64()?);
    let mut end_ms = events.first().and_then(elapsed).unwrap_or_default();
    let mut phases = Vec::new();
    for finished in &ready.progress.finished {
        let phase = finished.phase;
        let at_ms = if phases.is_empty() { 0.0 } else { end_ms };
        phases.push(PhaseStart { phase, at_ms });
        end_ms += Duration::from_millis(finished.elapsed_ms).as_secs_f64() * 1e3;
    }
    ensure!(
        phases.iter().map(|start| start.phase).eq(Phase::WORKING),
        "a run skipped a phase"
    );
    Ok(Trace {
        format: Trace::FORMAT,
        link: Link::Steady,
        pass: Pass::FirstRun,
        image: String::new(),
        engine: String::new(),
        reference: String::new(),
        seed: 0,
        bytes_per_second: 0.0,
        packed_bytes: 0,
        total_ms,
        phases,
        messages: tape.messages,
        manifest: tape.manifest,
        events,
        calls: tape.calls,
        ready: serde_json::to_value(&ready)?,
    })
}

/// Returns what a link does; nothing where it is not held back.
const fn shape(link: Link) -> Option<Shape> {
    match link {
        Link::Steady => Some(Shape::Steady),
        Link::Ramping => Some(Shape::Ramping),
        Link::Bursty => Some(Shape::Bursty),
        Link::Stalling => Some(Shape::Stalling),
        Link::Free => None,
    }
}

/// Returns the link's mean speed in bytes per second. With a history it is another day: between 0.7 and 1.4 times
/// that of the first run, so that repeating the last duration is no way to win.
fn mean_speed(link: Link, pass: Pass, seed: u64) -> f64 {
    let day = match pass {
        Pass::FirstRun => 1.0,
        Pass::WithHistory => {
            let share = f64::from(u16::try_from(seed % 1_000).unwrap_or_default()) / 999.0;
            0.7 * 2.0_f64.powf(share)
        }
    };
    // A link that stalls is faster in between, so that its runs are not much longer than the others.
    let haste = match link {
        Link::Steady | Link::Ramping | Link::Bursty | Link::Free => 1.0,
        Link::Stalling => 1.4,
    };
    day * haste * BYTES_PER_SECOND
}

fn seed_of(text: &str) -> u64 {
    // Folded once more: its low bits alone are not even for short texts.
    let hash = images::hash(text);
    hash ^ (hash >> 29)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an image is far below 2^53 bytes"
)]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
