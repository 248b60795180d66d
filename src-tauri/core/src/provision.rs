//! Provisioning: from a request to a session that can be used, and back when that fails.
//!
//! Every phase *ensures* its product: what already exists is found and used, so that create, open,
//! retry and resume are one pipeline. Events, cancel, the time limit and the clock are in one place
//! around it, [`Run::drive`] and what it supervises. Who may run when, and what a session is in between, is `sessions.rs`.

mod monitor;
mod shared_pull;
mod unwind;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cove_agent::{AGENT_PATH, WORKSPACE};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::monitor::Monitor;
pub(crate) use self::shared_pull::Pulls;
use self::unwind::{Late, Undo, Unwind};
use crate::agent::{self, Agent};
use crate::assets::Assets;
use crate::engine::{ContainerSpec, ContainerState, Engine, EngineFacts, ImageFacts, Labels};
use crate::error::{Error, ImageReason};
use crate::estimate::{History, ImageSource, RunKind};
use crate::labels;
use crate::progress::{Phase, Progress, Undone};
use crate::session::{CreateSession, SessionId};
use crate::settings::Settings;

/// How often progress is told while nothing else happens. With one more event a phase, this keeps a
/// session at or below ten events a second, however fast the engine talks.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// How long the agent may take to answer in a container that runs. It has 10 s for its own setup.
const AGENT_LIMIT: Duration = Duration::from_secs(20);

/// One run of the pipeline for one session.
pub(crate) struct Run {
    /// The engine to run on.
    pub engine: Arc<dyn Engine>,
    /// The agent and the built-in image.
    pub assets: Arc<Assets>,
    /// The pulls that are under way, of all runs.
    pub pulls: Arc<Pulls>,
    /// Counts every task of the run.
    pub tracker: TaskTracker,
    /// What holds for new containers, and the time limit.
    pub settings: Settings,
    /// What earlier runs took.
    pub history: History,
    /// The session.
    pub id: SessionId,
    /// What was asked for.
    pub request: CreateSession,
    /// When the session was created: RFC 3339, UTC.
    pub created: String,
    /// Where the run is, for snapshots.
    pub monitor: Arc<Monitor>,
    /// Ends the run when the user wants it.
    pub cancel: CancellationToken,
    /// Hears where the run is: at every phase, and several times a second.
    pub tell: Box<dyn Fn(Phase, Progress, String) + Send + Sync>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The agent has answered from inside the container.
    Ready {
        /// The connection to it.
        agent: Agent,
        /// The user that the image runs as.
        user: String,
    },
    /// Something went wrong; what the run had made was taken back.
    Failed {
        /// Why.
        error: Error,
        /// What was taken back.
        undone: Vec<Undone>,
    },
    /// The user wanted no more; what the run had made was taken back.
    Cancelled {
        /// What was taken back.
        undone: Vec<Undone>,
    },
}

/// What is found before anything is done.
struct Found {
    engine: EngineFacts,
    image: Option<ImageFacts>,
    has_volume: bool,
    container: Option<ContainerState>,
    /// The user of a container that is there already.
    user: Option<String>,
}

impl Run {
    /// Tells that the run has begun and waits for what is being done to the session already.
    pub(crate) fn await_turn(&self) {
        self.monitor
            .say("Waiting until the session's last change is complete");
        self.tell_progress();
    }

    /// Runs the pipeline to its end. What a failed or cancelled run has made is gone when this
    /// returns, but for what the engine is late with: that is gone when [`Late`] has finished.
    pub(crate) async fn drive(self) -> (Outcome, Option<Late>) {
        let unwind = Unwind::new(Arc::clone(&self.engine), self.tracker.clone(), self.id);
        match self.supervise(&unwind).await {
            Ok((agent, user)) => {
                unwind.forget();
                (Outcome::Ready { agent, user }, None)
            }
            Err(Error::Cancelled) => {
                let (undone, late) = unwind.run().await;
                (Outcome::Cancelled { undone }, Some(late))
            }
            Err(error) => {
                let (undone, late) = unwind.run().await;
                (Outcome::Failed { error, undone }, Some(late))
            }
        }
    }

    /// Runs the pipeline until it ends, is cancelled, or stands still for too long.
    async fn supervise(&self, unwind: &Unwind) -> Result<(Agent, String), Error> {
        let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limit = self.settings.time_limit();
        let mut work = std::pin::pin!(self.pipeline(unwind));
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
                result = &mut work => return result,
                _ = heartbeat.tick() => {
                    if self.monitor.idle() >= limit {
                        return Err(Error::Timeout { phase: self.monitor.phase(), limit });
                    }
                    self.tell_progress();
                }
            }
        }
    }

    /// The six phases, top to bottom; the sixth is to have come to the end.
    async fn pipeline(&self, unwind: &Unwind) -> Result<(Agent, String), Error> {
        self.enter(Phase::Starting, "Looking for a container engine");
        let found = self.look_around().await?;

        self.enter(
            Phase::PullingImage,
            format!("Looking for {}", self.image_name()),
        );
        let user = self.ensure_image(&found).await?;

        self.enter(Phase::CreatingVolume, "Creating the volume for /workspace");
        self.ensure_volume(&found, unwind).await?;

        self.enter(Phase::CreatingContainer, "Creating the container");
        self.ensure_container(&found, &user, unwind).await?;

        self.enter(Phase::StartingContainer, "Starting the container");
        let agent = self.ensure_ready(&found, &user, unwind).await?;
        Ok((agent, user))
    }

    fn enter(&self, phase: Phase, message: impl Into<String>) {
        self.monitor.enter(phase, message.into());
        self.tell_progress();
    }

    fn tell_progress(&self) {
        let (phase, progress, message) = self.monitor.snapshot();
        (self.tell)(phase, progress, message);
    }

    fn image_name(&self) -> String {
        if self.request.image.is_built_in() {
            "the built-in image".to_owned()
        } else {
            self.request.image.familiar()
        }
    }

    async fn look_around(&self) -> Result<Found, Error> {
        let engine = self.engine.connect().await?;
        let name = self.id.resource_name();
        let (image, volume, container) = tokio::try_join!(
            self.engine.image(&self.request.image),
            self.engine.volume(&name),
            self.engine.container(&name),
        )?;
        let foreign = |labels: &Labels| !labels::belong_to(labels, self.id);
        if volume.as_ref().is_some_and(foreign)
            || container
                .as_ref()
                .is_some_and(|container| foreign(&container.labels))
        {
            return Err(Error::NameConflict(name));
        }
        let user = container
            .as_ref()
            .filter(|container| container.state != ContainerState::Unusable)
            .and_then(|container| labels::user(&container.labels))
            .map(str::to_owned);
        let wanted = &self.request.image;
        let kind = RunKind {
            engine: engine.address.clone(),
            registry: wanted.registry().to_owned(),
            image: wanted.to_string(),
            source: if image.is_some() || user.is_some() {
                ImageSource::Engine
            } else if wanted.is_built_in() {
                ImageSource::BuiltIn
            } else {
                ImageSource::Registry
            },
        };
        let usual = self.history.usual(&kind);
        let is_new = volume.is_none() && container.is_none();
        self.monitor.expect(usual, is_new.then_some(kind));
        Ok(Found {
            engine,
            image,
            has_volume: volume.is_some(),
            user,
            container: container.map(|container| container.state),
        })
    }

    /// Makes sure that the image is on the engine, and returns the user that it runs as. A container
    /// that is there already needs no image any more.
    async fn ensure_image(&self, found: &Found) -> Result<String, Error> {
        if let Some(user) = &found.user {
            return Ok(user.clone());
        }
        let wanted = &self.request.image;
        let image = if let Some(image) = &found.image {
            image.clone()
        } else {
            if wanted.is_built_in() {
                self.monitor.say("Loading the built-in image");
                let archive = self.assets.base_image(&found.engine.architecture).await?;
                self.engine.load_image(archive).await?;
            } else {
                self.monitor.say(format!("Pulling {}", self.image_name()));
                self.pull(found).await?;
            }
            let pulled = self.engine.image(wanted).await?;
            pulled.ok_or_else(|| Error::ImageUnavailable {
                image: wanted.to_string(),
                reason: ImageReason::NotFound,
                message: "the engine does not have it after the pull".to_owned(),
            })?
        };
        let (has, needs) = (&image.architecture, &found.engine.architecture);
        if !has.is_empty() && has != needs {
            return Err(Error::ImageUnavailable {
                image: wanted.to_string(),
                reason: ImageReason::Platform,
                message: format!("the image is for {has}, and the engine runs {needs}"),
            });
        }
        Ok(image.user)
    }

    /// Pulls the image, or joins a run that does. The pull goes on for as long as any run waits for
    /// it.
    async fn pull(&self, found: &Found) -> Result<(), Error> {
        let pull = self.pulls.join(
            &self.engine,
            &self.request.image,
            &found.engine,
            self.monitor.pull_usual().as_ref(),
            &self.tracker,
        );
        self.monitor.watch_pull(pull.clone());
        pull.finished().await
    }

    async fn ensure_volume(&self, found: &Found, unwind: &Unwind) -> Result<(), Error> {
        if found.has_volume {
            return Ok(());
        }
        let (engine, name) = (Arc::clone(&self.engine), self.id.resource_name());
        let labels = labels::of(self.id, &self.request, &self.created);
        unwind
            .effect(Some(Undo::RemoveVolume(name.clone())), async move {
                engine.create_volume(&name, &labels).await
            })
            .await
    }

    /// Makes sure that the container exists and holds this app's agent.
    async fn ensure_container(
        &self,
        found: &Found,
        user: &str,
        unwind: &Unwind,
    ) -> Result<(), Error> {
        let name = self.id.resource_name();
        let exists = match found.container {
            Some(ContainerState::Running) => return Ok(()),
            Some(ContainerState::Created | ContainerState::Exited) => true,
            Some(ContainerState::Unusable) => {
                let (engine, name) = (Arc::clone(&self.engine), name.clone());
                let remove = async move { engine.remove_container(&name).await.map(drop) };
                unwind.effect(None, remove).await?;
                false
            }
            None => false,
        };
        let agent = self.assets.agent(&found.engine.architecture)?;
        let archive = agent_archive(&agent)?;
        if !exists {
            let (engine, spec) = (Arc::clone(&self.engine), self.container_spec(user));
            unwind
                .effect(Some(Undo::RemoveContainer(name.clone())), async move {
                    engine.create_container(&spec).await
                })
                .await?;
        }
        let engine = Arc::clone(&self.engine);
        unwind
            .effect(None, async move { engine.upload(&name, archive).await })
            .await
    }

    /// Makes sure that the container runs and that the agent answers from inside.
    async fn ensure_ready(
        &self,
        found: &Found,
        user: &str,
        unwind: &Unwind,
    ) -> Result<Agent, Error> {
        let name = self.id.resource_name();
        if found.container != Some(ContainerState::Running) {
            // A container that was there before is put back to how it was, not removed.
            let undo = match found.container {
                Some(ContainerState::Created | ContainerState::Exited) => {
                    Some(Undo::StopContainer(name.clone()))
                }
                Some(ContainerState::Running | ContainerState::Unusable) | None => None,
            };
            let (engine, container) = (Arc::clone(&self.engine), name.clone());
            unwind
                .effect(
                    undo,
                    async move { engine.start_container(&container).await },
                )
                .await?;
            self.monitor.say("Waiting for the agent in the container");
        }
        let connected = agent::connect(&*self.engine, &name, user, &self.tracker);
        let answer = tokio::time::timeout(AGENT_LIMIT, connected).await;
        let error = match answer {
            Ok(Ok((agent, _hello))) => return Ok(agent),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                Error::AgentUnavailable(format!("no answer within {} s", AGENT_LIMIT.as_secs()))
            }
        };
        // If the container has ended meanwhile, that is the better explanation.
        match self.engine.container(&name).await {
            Ok(Some(container)) if container.state == ContainerState::Exited => {
                Err(Error::AgentUnavailable(format!(
                    "the container ended at once with exit code {}",
                    container.exit_code
                )))
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    fn container_spec(&self, user: &str) -> ContainerSpec {
        let name = self.id.resource_name();
        let project = self.request.project_name.clone();
        ContainerSpec {
            hostname: hostname(project.as_deref(), self.id),
            image: self.request.image.to_string(),
            command: [AGENT_PATH, "init", "--owner", user]
                .map(str::to_owned)
                .to_vec(),
            environment: project
                .map(|name| format!("COVE_PROJECT={name}"))
                .into_iter()
                .collect(),
            labels: labels::of_container(self.id, &self.request, &self.created, user),
            volume: (name.clone(), WORKSPACE.to_owned()),
            cpu_limit: self.settings.cpu_limit,
            memory_limit: self.settings.memory_limit_mb.map(|mb| mb * 1024 * 1024),
            pids_limit: self.settings.pids_limit,
            name,
        }
    }
}

/// Returns a host name that looks like the project's name: letters, digits and hyphens, as RFC 1123
/// has it.
fn hostname(project: Option<&str>, id: SessionId) -> String {
    let letters = project.unwrap_or_default().chars().map(|c| match c {
        'a'..='z' | '0'..='9' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    });
    let name: String = letters.take(40).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        id.to_string().chars().take(8).collect()
    } else {
        name.to_owned()
    }
}

/// Packs the agent as the archive that is unpacked at the container's root.
fn agent_archive(agent: &[u8]) -> Result<Bytes, Error> {
    let pack = || -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::with_capacity(agent.len() + 4096));
        let mut add = |path: &str, kind: tar::EntryType, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content)
        };
        add(".cove/", tar::EntryType::Directory, &[])?;
        add(
            AGENT_PATH.trim_start_matches('/'),
            tar::EntryType::Regular,
            agent,
        )?;
        archive.into_inner()
    };
    pack()
        .map(Bytes::from)
        .map_err(|error| Error::Internal(format!("failed to pack the agent: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_valid_whatever_the_project_is_called() {
        let id = SessionId::random();
        let short: String = id.to_string().chars().take(8).collect();
        for (project, expected) in [
            (Some("api-server"), "api-server"),
            (Some("My App (2)"), "my-app--2"),
            (Some("日本"), short.as_str()),
            (None, short.as_str()),
        ] {
            assert_eq!(hostname(project, id), expected);
        }
    }
}
