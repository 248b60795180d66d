//! Provisioning: from a request to a session that can be used, and back when that fails.
//!
//! Every phase *ensures* its product: what already exists is found and used, so that create, open,
//! retry and resume are one pipeline. Events, cancel, the time limit and the clock are in one place
//! around it, [`Run::drive`] and what it supervises. Who may run when, and what a session is in between, is `sessions.rs`.

mod copying;
mod limits;
mod monitor;
mod network;
mod shared_pull;
mod unwind;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cove_agent::{AGENT_PATH, WORKSPACE};
use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) use self::copying::container_of;
use self::copying::unfilled_mark;
pub(crate) use self::limits::{Limits, bounds, check};
pub(crate) use self::monitor::Monitor;
pub(crate) use self::network::{Networks, remove_unused};
pub(crate) use self::shared_pull::Pulls;
use self::unwind::{CANCEL_LIMIT, Unwind};
pub(crate) use self::unwind::{IfAbsent, PendingUndos, UndoAttempt, take_back};
use crate::assets::Assets;
use crate::connection::{self, Connection};
use crate::engine::{
    ContainerFacts, ContainerNetwork, ContainerSpec, ContainerState, Engine, EngineFacts,
    ImageFacts, Labels, NetworkKind, end_programs, in_time,
};
use crate::error::{Error, ImageReason, NamedKind};
use crate::estimate::{History, ImageSource, RunKind};
use crate::journal::{Journal, Record, Undo};
use crate::labels;
use crate::progress::{Phase, Progress, Undone};
use crate::session::{CreateSession, SessionId, Source};
use crate::settings::Settings;
use crate::terminal;

/// How often progress is told while nothing else happens. With one more event a phase, this keeps a
/// session at or below ten events a second, however fast the engine talks.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// How long an engine may take to show a container that a process which was killed had asked for.
const LATE_CREATE: Duration = Duration::from_secs(5);

/// One run of the pipeline for one session.
pub(crate) struct Run {
    /// The engine that the session is on: the run asks no other.
    pub engine: Arc<dyn Engine>,
    /// The agent and the built-in image.
    pub assets: Arc<Assets>,
    /// The pulls that are under way, of all runs.
    pub pulls: Arc<Pulls>,
    /// The turns of all runs that look for a network.
    pub networks: Arc<Networks>,
    /// Where effects are written down before they happen.
    pub journal: Arc<Journal>,
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
    /// Where the files of a new session come from.
    pub source: Option<Source>,
    /// Whether a container that is there already is replaced by a new one around the same volume.
    pub rebuild: bool,
    /// What an earlier run may have left, oldest first: it is this run's to keep or to take back.
    pub inherited: Vec<Undo>,
    /// What ends it, and who hears of it.
    pub supervision: Supervision,
}

/// What holds for a run from its first moment, also while it waits for its lock or its engine.
pub(crate) struct Supervision {
    /// Where the run is, for snapshots.
    pub monitor: Arc<Monitor>,
    /// Ends the run when the user wants it.
    pub cancel: CancellationToken,
    /// How long the run may stand still.
    pub limit: Duration,
    /// Hears that the programs of the old container are being ended, with what ends the wait for them, and when
    /// that is over.
    pub ending: Box<dyn Fn(Option<CancellationToken>) + Send + Sync>,
    /// Hears where the run is: at every phase, and several times a second.
    pub tell: Box<dyn Fn(Phase, Progress, String) + Send + Sync>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The agent has answered from inside the container.
    Ready(Answered),
    /// Something went wrong; what the run had made was taken back.
    Failed {
        /// Why it failed.
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

/// An agent that has answered from inside its container.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The connection to it.
    pub connection: Connection,
    /// The terminals that are there, from an earlier run of the app.
    pub(crate) terminals: terminal::Found,
    /// The container's id or name; it is good for as long as the container lives.
    pub container: String,
}

/// What is found before anything is done.
struct Found {
    engine: EngineFacts,
    image: Option<ImageFacts>,
    has_volume: bool,
    /// The session's volumes for folders below `/workspace`: name and folder.
    inner_volumes: Vec<(String, String)>,
    container: Option<ContainerFacts>,
    /// The user of a container that is there already and stays.
    user: Option<String>,
}

/// What a container is made from.
struct Base {
    /// The image's id.
    image: String,
    /// The user that the image runs as.
    user: String,
    /// Whether the image sets `HOME` itself.
    sets_home: bool,
    /// The folders that the image declares as volumes.
    volumes: Vec<String>,
}

/// Returns the name of a container that is kept aside while its successor is made.
pub(crate) fn name_aside(id: SessionId) -> String {
    format!("{}-replaced", id.resource_name())
}

/// Removes the container that a successor has replaced. One that stays goes when the session is next
/// ready; until then another app may be in the middle of the rebuild.
pub(crate) async fn drop_replaced(engine: &dyn Engine, id: SessionId) {
    let aside = name_aside(id);
    let remove = async {
        match engine.container(&aside).await? {
            Some(container) if container.belongs_to(id) => {
                engine.remove_container(&container.id).await?;
                remove_unused(engine, id, None).await
            }
            Some(_) | None => Ok(()),
        }
    };
    if let Err(error) = in_time("remove the replaced container", remove).await {
        log::warn!("container `{aside}` is still there: {error}");
    }
}

impl Supervision {
    /// Waits until what is being done to the session already is over. Until then, and at the latest when
    /// the limit on standing still is reached, nothing of the run has happened.
    pub(crate) async fn await_turn<'a>(
        &self,
        turn: &'a Mutex<()>,
    ) -> Result<MutexGuard<'a, ()>, Error> {
        if let Ok(turn) = turn.try_lock() {
            return Ok(turn);
        }
        self.monitor
            .say("Waiting until the session's last change is complete");
        self.tell_progress();
        self.supervise(async { Ok(turn.lock().await) }).await
    }

    /// Does the work until it ends, is cancelled, or stands still for too long.
    pub(crate) async fn supervise<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limit = self.limit;
        let mut work = std::pin::pin!(work);
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

    /// Begins a phase, and says so.
    pub(crate) fn enter(&self, phase: Phase, message: impl Into<String>) {
        self.monitor.enter(phase, message.into());
        self.tell_progress();
    }

    fn tell_progress(&self) {
        let (phase, progress, message) = self.monitor.snapshot();
        (self.tell)(phase, progress, message);
    }
}

impl Run {
    /// Runs the pipeline to its end. What a failed or cancelled run has made is gone when this
    /// returns, but for what the engine is late with or would not take back: [`PendingUndos::finish`] tries
    /// again.
    pub(crate) async fn drive(self) -> (Outcome, Option<PendingUndos>) {
        let mut record = Record::new(
            Some(self.engine.identity().clone()),
            self.id,
            &self.request,
            &self.created,
            self.source.clone(),
        );
        record.undos.clone_from(&self.inherited);
        let unwind = Unwind::new(
            Arc::clone(&self.engine),
            self.tracker.clone(),
            Arc::clone(&self.journal),
            self.id,
            record,
        );
        match self.supervision.supervise(self.pipeline(&unwind)).await {
            Ok(answered) => {
                // Before anybody hears of it: a session that is in use must never be unwound.
                unwind.forget().await;
                (Outcome::Ready(answered), None)
            }
            Err(error) => {
                // What went wrong is told whole, unless the user does not want to wait any more.
                let patience = async {
                    self.supervision.cancel.cancelled().await;
                    tokio::time::sleep(CANCEL_LIMIT).await;
                };
                let (undone, pending) = unwind.run(patience).await;
                let outcome = match error {
                    Error::Cancelled => Outcome::Cancelled { undone },
                    error => Outcome::Failed { error, undone },
                };
                (outcome, Some(pending))
            }
        }
    }

    /// The six phases, top to bottom; the first has begun with the search for the engine, and the sixth is to
    /// have come to the end.
    async fn pipeline(&self, unwind: &Unwind) -> Result<Answered, Error> {
        unwind.begin().await?;
        let found = self.find_existing().await?;

        self.enter(
            Phase::PullingImage,
            format!("Looking for {}", self.image_name()),
        );
        let base = self.ensure_image(&found).await?;
        let user = base.user.clone();

        self.enter(Phase::CreatingVolume, "Creating the volume for /workspace");
        self.ensure_volume(&found, unwind).await?;
        let inner = self
            .ensure_inner_volumes(&found, &base.volumes, unwind)
            .await?;

        self.enter(Phase::CreatingContainer, "Creating the container");
        let container = self.ensure_container(&found, &base, inner, unwind).await?;

        self.enter(Phase::StartingContainer, "Starting the container");
        let connection = self.ensure_ready(&found, &container, &user, unwind).await?;
        Ok(Answered {
            terminals: terminal::found(&connection).await,
            connection,
            container,
        })
    }

    fn enter(&self, phase: Phase, message: impl Into<String>) {
        self.supervision.enter(phase, message);
    }

    fn image_name(&self) -> String {
        if self.request.image.is_built_in() {
            "the built-in image".to_owned()
        } else {
            self.request.image.familiar()
        }
    }

    async fn find_existing(&self) -> Result<Found, Error> {
        let name = self.id.resource_name();
        let (engine, image, volume, named, owned) = tokio::try_join!(
            self.engine.facts(),
            self.engine.image(&self.request.image),
            self.engine.volume(&name),
            self.engine.container(&name),
            self.engine.owned(Some(self.id)),
        )?;
        let is_theirs = |labels: &Labels| !labels::belong_to(labels, self.id);
        let taken = if volume.as_ref().is_some_and(is_theirs) {
            Some(NamedKind::Volume)
        } else {
            let is_theirs = |container: &ContainerFacts| !container.belongs_to(self.id);
            let is_taken = named.as_ref().is_some_and(is_theirs);
            is_taken.then_some(NamedKind::Container)
        };
        if let Some(kind) = taken {
            return Err(Error::NameConflict {
                kind,
                name,
                command: engine.command,
            });
        }
        let image = match image {
            Some(image) if self.request.image.is_built_in() => {
                let is_it = self.assets.is_base_image(&engine.architecture, &image);
                is_it.await?.then_some(image)
            }
            image => image,
        };
        // Somebody may have given the container another name: the label says whose it is.
        let aside = name_aside(self.id);
        let inner_volumes = owned.volumes.iter().filter_map(|(name, labels)| {
            labels::inner_path(labels).map(|path| (name.clone(), path.to_owned()))
        });
        let inner_volumes = inner_volumes.collect();
        let container = named.or_else(|| {
            let mut others = owned.containers.into_iter();
            others.find(|container| container.name != aside)
        });
        let user = container
            .as_ref()
            .filter(|container| container.state != ContainerState::Unusable && !self.rebuild)
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
        let is_new = volume.is_none() && container.is_none() && self.source.is_none();
        self.supervision
            .monitor
            .expect(usual, is_new.then_some(kind));
        Ok(Found {
            engine,
            image,
            has_volume: volume.is_some(),
            inner_volumes,
            user,
            container,
        })
    }

    /// Makes sure that the image is on the engine, and returns what a container is made from. A container
    /// that is there already needs no image any more.
    async fn ensure_image(&self, found: &Found) -> Result<Base, Error> {
        let wanted = &self.request.image;
        if let Some(user) = &found.user {
            return Ok(Base {
                image: wanted.to_string(),
                user: user.clone(),
                // There is a container, which has been told.
                sets_home: false,
                volumes: Vec::new(),
            });
        }
        let image = if let Some(image) = &found.image {
            image.clone()
        } else {
            if wanted.is_built_in() {
                self.supervision.monitor.say("Loading the built-in image");
                let archive = self.assets.base_image(&found.engine.architecture).await?;
                self.engine.load_image(archive).await?;
            } else {
                self.supervision
                    .monitor
                    .say(format!("Pulling {}", self.image_name()));
                self.pull(found).await?;
            }
            let pulled = self.engine.image(wanted).await?;
            pulled.ok_or_else(|| Error::ImageUnavailable {
                image: wanted.to_string(),
                reason: ImageReason::NotFound,
                message: "the engine does not have it after the pull".to_owned(),
                command: found.engine.command,
            })?
        };
        let (has, needs) = (&image.architecture, &found.engine.architecture);
        if !has.is_empty() && !found.engine.runs(has) {
            return Err(Error::ImageUnavailable {
                image: wanted.to_string(),
                reason: ImageReason::Platform,
                message: format!("the image is for {has}, and the engine runs {needs}"),
                command: found.engine.command,
            });
        }
        // What was looked at is what is used, whatever its name stands for by then.
        Ok(Base {
            image: image.id,
            user: image.user,
            sets_home: image.sets_home,
            volumes: image.volumes,
        })
    }

    /// Pulls the image, or joins a run that does. The pull goes on for as long as any run waits for
    /// it.
    async fn pull(&self, found: &Found) -> Result<(), Error> {
        let pull = self.pulls.join(
            &self.engine,
            &self.request.image,
            &found.engine,
            self.supervision.monitor.pull_usual().as_ref(),
            &self.tracker,
        );
        self.supervision.monitor.watch_pull(pull.clone());
        let waits = |program: Option<&str>| {
            self.supervision.monitor.say(match program {
                Some(program) => format!("Waiting for {program}"),
                None => format!("Pulling {}", self.image_name()),
            });
        };
        pull.finished(waits).await
    }

    async fn ensure_volume(&self, found: &Found, unwind: &Unwind) -> Result<(), Error> {
        if found.has_volume {
            return Ok(());
        }
        let (engine, name) = (Arc::clone(&self.engine), self.id.resource_name());
        let labels = labels::of(self.id, &self.request, &self.created);
        unwind
            .effect(
                Some(Undo::RemoveVolume {
                    name: name.clone(),
                    may_lack_labels: false,
                }),
                async move { engine.create_volume(&name, &labels).await },
            )
            .await
    }

    /// Makes sure that every folder below `/workspace` that the image declares as a volume has one of the
    /// session's own, and returns all that there are with their folders. An engine would make nameless ones, whose
    /// files are gone with the container; a session's files are all that is below `/workspace`.
    async fn ensure_inner_volumes(
        &self,
        found: &Found,
        declared: &[String],
        unwind: &Unwind,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut inner = found.inner_volumes.clone();
        for path in declared.iter().filter_map(|path| inner_path(path)) {
            if inner.iter().any(|(_, taken)| *taken == path) {
                continue;
            }
            let names = (1..).map(|number| self.id.inner_volume_name(number));
            let is_free = |name: &String| inner.iter().all(|(taken, _)| taken != name);
            let Some(name) = names.take(inner.len() + 1).find(is_free) else {
                continue;
            };
            let labels = labels::of_inner_volume(self.id, &self.request, &self.created, &path);
            let undo = Undo::RemoveVolume {
                name: name.clone(),
                may_lack_labels: false,
            };
            let (engine, volume) = (Arc::clone(&self.engine), name.clone());
            let create = async move { engine.create_volume(&volume, &labels).await };
            unwind.effect(Some(undo), create).await?;
            inner.push((name, path));
        }
        inner.sort_by(|(_, a), (_, b)| a.cmp(b));
        Ok(inner)
    }

    /// Makes sure that the container exists and holds this app's agent, and returns its id.
    async fn ensure_container(
        &self,
        found: &Found,
        base: &Base,
        inner_volumes: Vec<(String, String)>,
        unwind: &Unwind,
    ) -> Result<String, Error> {
        let existing = match &found.container {
            Some(container) if self.rebuild => {
                self.set_aside(container, unwind).await?;
                None
            }
            Some(container) => match container.state {
                ContainerState::Running | ContainerState::Paused => {
                    return Ok(container.id.clone());
                }
                ContainerState::Created | ContainerState::Exited => Some(container.id.clone()),
                ContainerState::Unusable => {
                    let (engine, id) = (Arc::clone(&self.engine), container.id.clone());
                    let remove = async move { engine.remove_container(&id).await.map(drop) };
                    unwind.effect(None, remove).await?;
                    None
                }
            },
            None => None,
        };
        let archive = self.assets.agent_archive(&found.engine.architecture)?;
        let container = if let Some(id) = existing {
            id
        } else {
            let limits = Limits::new(&self.settings, &self.engine.capacity().await?);
            if !limits.lowered.is_empty() {
                let lowered = limits.lowered.join(" and ");
                self.supervision
                    .monitor
                    .say(format!("Creating the container with {lowered}"));
                self.supervision.tell_progress();
            }
            let engine = Arc::clone(&self.engine);
            let spec = ContainerSpec {
                inner_volumes,
                network: self.network_of_new_container(&found.engine, unwind).await?,
                ..self.container_spec(base, &limits, found)
            };
            let undo = Undo::RemoveContainer {
                name: spec.name.clone(),
                spare: found.container.as_ref().map(|replaced| replaced.id.clone()),
            };
            let create = create_or_take_over(engine, spec, self.id);
            unwind.effect(Some(undo), create).await?
        };
        let (engine, id) = (Arc::clone(&self.engine), container.clone());
        let mark = self.source.is_some().then(unfilled_mark);
        let uploads = mark.map(Bytes::from).into_iter().chain([archive]);
        for archive in uploads {
            let (engine, id) = (Arc::clone(&engine), id.clone());
            let archive = stream::iter([Ok(archive)]).boxed();
            unwind
                .effect(None, async move { engine.upload(&id, "/", archive).await })
                .await?;
        }
        Ok(container)
    }

    /// Keeps a container under another name until its successor is ready.
    async fn set_aside(&self, container: &ContainerFacts, unwind: &Unwind) -> Result<(), Error> {
        let (name, aside) = (self.id.resource_name(), name_aside(self.id));
        self.supervision
            .monitor
            .say("Setting the old container aside");
        if matches!(
            container.state,
            ContainerState::Running | ContainerState::Paused
        ) {
            let (engine, id) = (Arc::clone(&self.engine), container.id.clone());
            let undo = Undo::StartContainer {
                name: name.clone(),
                id: id.clone(),
            };
            let (grace, hurry) = (self.settings.stop_grace(), CancellationToken::new());
            (self.supervision.ending)(Some(hurry.clone()));
            self.supervision
                .monitor
                .say("Ending the programs of the old container");
            let ended = unwind
                .effect(Some(undo), async move {
                    end_programs(&*engine, &id, grace, &hurry).await
                })
                .await;
            (self.supervision.ending)(None);
            ended?;
        }
        let (engine, id) = (Arc::clone(&self.engine), container.id.clone());
        let undo = Undo::RestoreContainer {
            name,
            aside: aside.clone(),
        };
        unwind
            .effect(Some(undo), async move {
                engine.rename_container(&id, &aside).await
            })
            .await
    }

    /// Makes sure that the container runs and that the agent answers from inside.
    async fn ensure_ready(
        &self,
        found: &Found,
        container: &str,
        user: &str,
        unwind: &Unwind,
    ) -> Result<Connection, Error> {
        let name = self.id.resource_name();
        let was = found.container.as_ref().filter(|_| !self.rebuild);
        let (engine, id) = (Arc::clone(&self.engine), container.to_owned());
        match was.map(|container| container.state) {
            Some(ContainerState::Running) => {}
            Some(ContainerState::Paused) => {
                let undo = Undo::PauseContainer {
                    name: name.clone(),
                    id: id.clone(),
                };
                unwind
                    .effect(
                        Some(undo),
                        async move { engine.unpause_container(&id).await },
                    )
                    .await?;
            }
            state => {
                // A container that was there before is put back to how it was, not removed.
                let undo = match state {
                    Some(ContainerState::Created | ContainerState::Exited) => {
                        Some(Undo::StopContainer {
                            name: name.clone(),
                            id: id.clone(),
                        })
                    }
                    _ => None,
                };
                let kind = found.engine.network_kind;
                let is_connected = match was {
                    Some(was) if was.state != ContainerState::Unusable => {
                        network::is_connected(was, kind)
                    }
                    // It was just made on it.
                    Some(_) | None => kind == NetworkKind::Shared,
                };
                let container = (container, is_connected);
                self.start_container(&found.engine, container, undo, unwind)
                    .await?;
                self.supervision
                    .monitor
                    .say("Waiting for the agent in the container");
            }
        }
        if let Some(source) = &self.source {
            self.copy_files(source, container, user).await?;
            self.supervision
                .monitor
                .say("Waiting for the agent in the container");
        }
        let preparing = |seen: u64| {
            self.supervision
                .monitor
                .say(format!("Giving the files to their user: {seen}"));
            self.supervision.tell_progress();
        };
        let (engine, tracker) = (&self.engine, &self.tracker);
        let connected = connection::connect(engine, container, tracker, &preparing);
        let error = match connected.await {
            Ok((connection, hello)) => {
                log::info!("agent {} in `{name}`", hello.agent_version);
                if hello.workspace_writable {
                    return Ok(connection);
                }
                let error = Error::WorkspaceReadOnly {
                    user: hello.user.unwrap_or_else(|| hello.uid.to_string()),
                    uid: hello.uid,
                    gid: hello.gid,
                };
                // In a container that was there before it is the user's own doing, and its files are not
                // locked away for that.
                if was.is_some() {
                    log::warn!("session {}: {error}", self.id);
                    return Ok(connection);
                }
                return Err(error);
            }
            Err(error) => error,
        };
        // If the container has ended meanwhile, that is the better explanation.
        match self.engine.container(container).await {
            Ok(Some(container)) if container.state == ContainerState::Exited => {
                Err(Error::AgentUnavailable(format!(
                    "the container ended at once with exit code {}",
                    container.exit_code
                )))
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Returns what of the workspace a new container gives to its user, as the agent calls it: everything in
    /// a new session, and in one that has a past or a model what the last container's user had.
    fn give(&self, found: &Found) -> &'static str {
        let is_volume = |undo: &Undo| matches!(undo, Undo::RemoveVolume { .. });
        let is_new = !self.rebuild && (!found.has_volume || self.inherited.iter().any(is_volume));
        match self.source {
            Some(Source::Archive { .. }) => "all",
            None if is_new => "all",
            Some(Source::Session { .. }) | None => "former",
        }
    }

    fn container_spec(&self, base: &Base, limits: &Limits, found: &Found) -> ContainerSpec {
        let name = self.id.resource_name();
        let project = self.request.project_name.clone();
        // The files are given once in a container's life, also in one that is made of this one's image.
        let token = Uuid::new_v4().to_string();
        let owner = [
            "--owner",
            &base.user,
            "--give",
            self.give(found),
            "--token",
            &token,
        ];
        ContainerSpec {
            hostname: hostname(project.as_deref(), self.id),
            image: base.image.clone(),
            command: [AGENT_PATH, "init"]
                .into_iter()
                .chain(owner)
                .chain(base.sets_home.then_some("--keep-home"))
                .map(str::to_owned)
                .collect(),
            environment: project
                .map(|name| format!("COVE_PROJECT={name}"))
                .into_iter()
                .chain(found.engine.environment.iter().cloned())
                .collect(),
            labels: labels::of_container(self.id, &self.request, &self.created, &base.user),
            volume: (name.clone(), WORKSPACE.to_owned()),
            inner_volumes: Vec::new(),
            network: ContainerNetwork::None,
            cpu_limit: limits.processors,
            memory_limit: limits.memory_bytes,
            memory_and_swap_limit: limits.memory_and_swap_bytes,
            pids_limit: self.settings.pids_limit,
            may_gain_privileges: self.request.allow_privilege_gain,
            name,
        }
    }
}

/// Creates the container, or takes over the one of that name if it is this session's: a process that was
/// killed had asked for it, and the engine was late.
async fn create_or_take_over(
    engine: Arc<dyn Engine>,
    spec: ContainerSpec,
    owner: SessionId,
) -> Result<String, Error> {
    let begin = Instant::now();
    loop {
        let conflict = match engine.create_container(&spec).await {
            Err(conflict @ Error::NameConflict { .. }) => conflict,
            created => return created,
        };
        match engine.container(&spec.name).await? {
            Some(found) if found.belongs_to(owner) => return Ok(found.id),
            // An engine keeps a name before it shows what will bear it.
            None if begin.elapsed() < LATE_CREATE => tokio::time::sleep(HEARTBEAT).await,
            Some(_) | None => return Err(conflict),
        }
    }
}

/// Returns a folder that an image declares as a volume, if it is below `/workspace`, without what means nothing in
/// it.
fn inner_path(declared: &str) -> Option<String> {
    let mut names = Vec::new();
    for name in declared.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    let path = format!("/{}", names.join("/"));
    let below = path.strip_prefix(WORKSPACE)?.strip_prefix('/')?;
    // An engine takes it for the end of the folder's name.
    (!below.is_empty() && !below.contains(':')).then_some(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_below_the_workspace_are_inner_ones() {
        for (declared, expected) in [
            ("/workspace/node_modules", Some("/workspace/node_modules")),
            ("/workspace//a/./b/", Some("/workspace/a/b")),
            ("/data/../workspace/x", Some("/workspace/x")),
            ("/workspace", None),
            ("/workspace/", None),
            ("/workspace/..", None),
            ("/workspace/../data", None),
            ("/workspaces/a", None),
            ("/data", None),
            ("", None),
        ] {
            assert_eq!(inner_path(declared).as_deref(), expected, "{declared}");
        }
    }

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
