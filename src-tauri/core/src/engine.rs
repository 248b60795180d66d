//! The engine: what Cove asks of a container engine, and the plain types to ask it in.
//!
//! Each trait has two implementers: one in [`docker`] for everything that speaks Docker's API, and a fake
//! in the tests for failures that no real engine shows on demand. Which of several engines is meant is
//! not decided here: that is `engines.rs`.

pub mod docker;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cove_agent::WORKSPACE;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use crate::error::{EngineCommand, EngineReason, Error};
use crate::figures::{ContainerLimits, Figures};
use crate::image::ImageReference;
use crate::labels;
use crate::session::SessionId;

pub use crate::engine_id::{EngineId, EngineIdentity, RememberedEngines};
pub use crate::labels::Labels;
pub use crate::layer::{LAYER_LIMIT, LayerSize, LayerStep, PullDialect, PullMessage};

/// How long an engine may take to stop or to remove a session, beyond what programs have to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The places where engines may listen.
#[async_trait]
pub trait Places: Send + Sync + 'static {
    /// Returns whether the user has named the one place to look at, for this start of the app.
    fn is_named(&self) -> bool;

    /// Looks at every place, best first.
    async fn survey(&self) -> Vec<Found>;

    /// Connects to the first engine that answers.
    ///
    /// # Errors
    /// [`Error::EngineUnavailable`], with the reason that is likeliest to help.
    async fn first(&self) -> Result<Connected, Error>;

    /// Connects to this engine and to no other, wherever it listens now.
    ///
    /// # Errors
    /// What is wrong where it listened before.
    async fn find(&self, engine: &EngineIdentity) -> Result<Connected, EngineProblem>;
}

/// One container engine. Every call talks to this engine and to no other; nothing is remembered but
/// the way to it.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Returns which engine this is.
    fn identity(&self) -> &EngineIdentity;

    /// Says what the engine is, after it has shown that it is still the same one.
    ///
    /// # Errors
    /// [`Error::EngineUnavailable`]; [`Error::EngineAway`] when another engine answers in its place.
    async fn facts(&self) -> Result<EngineFacts, Error>;

    /// Returns what the engine has for its containers.
    async fn capacity(&self) -> Result<EngineCapacity, Error>;

    /// Returns the image, or `None` when it is not on the engine. Contacts no registry.
    async fn image(&self, image: &ImageReference) -> Result<Option<ImageFacts>, Error>;

    /// Returns the images on the engine, sorted by name.
    async fn images(&self) -> Result<Vec<ImageView>, Error>;

    /// Looks up the user's own credential for the image's registry, as `docker` does. `waits` hears the program that
    /// is waited for, if one has to be asked.
    async fn credential(&self, image: &ImageReference, waits: Waits<'_>) -> Lent;

    /// Pulls an image. Dropping the stream stops the pull on the engine.
    ///
    /// # Errors
    /// The stream ends after its first error, which is [`Error::ImageUnavailable`] where the
    /// registry is the cause.
    async fn pull(
        &self,
        image: &ImageReference,
        lent: &Lent,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error>;

    /// Asks the image's registry how large the image's layers are, for a processor that is named as
    /// the kernel does, with the user's own credentials.
    /// Downloads no layer.
    ///
    /// # Errors
    /// [`Error::ImageUnavailable`]; a pull may succeed all the same, from a mirror for instance.
    async fn layer_sizes(
        &self,
        image: &ImageReference,
        architecture: &str,
        lent: &Lent,
    ) -> Result<Vec<LayerSize>, Error>;

    /// Loads an image archive, as `docker load` does.
    async fn load_image(&self, archive: Bytes) -> Result<(), Error>;

    /// Returns the volume's labels, or `None` when there is no such volume.
    async fn volume(&self, name: &str) -> Result<Option<Labels>, Error>;

    /// Creates a volume.
    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error>;

    /// Removes a volume. Succeeds when there is none, and says whether there was one.
    async fn remove_volume(&self, name: &str) -> Result<bool, Error>;

    /// Returns the container, or `None` when there is no such container.
    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error>;

    /// Creates a container without starting it, and returns its id.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error>;

    /// Gives a container another name.
    async fn rename_container(&self, container: &str, name: &str) -> Result<(), Error>;

    /// Unpacks a tar archive in a folder of the container, running or not.
    async fn upload(&self, container: &str, folder: &str, archive: Archive) -> Result<(), Error>;

    /// Packs a file or folder of the container, running or not, as a tar archive. A folder that ends
    /// in `/.` is packed without its own name.
    ///
    /// # Errors
    /// The stream ends after its first error.
    async fn download(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;

    /// Starts a container. Succeeds when it runs already.
    ///
    /// # Errors
    /// [`Error::NetworkGone`] when somebody has removed the network that it is on.
    async fn start_container(&self, name: &str) -> Result<(), Error>;

    /// Stops a container by SIGTERM, and by SIGKILL what has not ended after `grace`, to the second. Succeeds
    /// when it does not run or does not exist.
    async fn stop_container(&self, name: &str, grace: Duration) -> Result<(), Error>;

    /// Lets the processes of a container go on. Succeeds when it is not paused.
    async fn unpause_container(&self, name: &str) -> Result<(), Error>;

    /// Holds up the processes of a container.
    async fn pause_container(&self, name: &str) -> Result<(), Error>;

    /// Removes a container, running or not, with the volumes that its image declared and that nobody
    /// gave a name to. Succeeds when there is none, and says whether there was one.
    async fn remove_container(&self, name: &str) -> Result<bool, Error>;

    /// Returns the networks that bear Cove's label.
    async fn networks(&self) -> Result<Vec<NetworkFacts>, Error>;

    /// Creates a network that has a way out and keeps sessions apart, each in the way of its kind.
    ///
    /// # Errors
    /// [`Error::NetworkUnavailable`] when the engine cannot.
    async fn create_network(
        &self,
        name: &str,
        labels: &Labels,
        kind: NetworkKind,
    ) -> Result<(), Error>;

    /// Removes a network that no container uses, running or not, and says whether it has. Succeeds when there is
    /// none and when it is used.
    async fn remove_network(&self, name: &str) -> Result<bool, Error>;

    /// Puts a container that does not run on a network of Cove's, and takes it from the engine's default one and from
    /// others of Cove's. Leaves alone what others have put it on, and one whose network cannot be changed.
    ///
    /// # Errors
    /// [`Error::NetworkGone`].
    async fn connect_container(&self, container: &str, network: &str) -> Result<(), Error>;

    /// Returns every container and volume that is a Cove session's, or this one's.
    async fn owned(&self, session: Option<SessionId>) -> Result<Owned, Error>;

    /// Hears that containers and volumes change, whoever changes them, from now on. What is true then,
    /// [`Self::owned`] says. The stream ends when the engine goes away.
    async fn changes(&self) -> Result<BoxStream<'static, Result<Change, Error>>, Error>;

    /// Measures what a container uses, again and again at the engine's own pace. Dropping the stream ends the
    /// measuring.
    ///
    /// # Errors
    /// The stream ends after its first error.
    async fn figures(
        &self,
        container: &str,
    ) -> Result<BoxStream<'static, Result<Figures, Error>>, Error>;

    /// Returns what a container may use.
    async fn limits(&self, container: &str) -> Result<ContainerLimits, Error>;

    /// Reads the last lines of what the first process of a container has printed, running or not; with `follow` also
    /// what it prints from then on, until it ends or the stream is dropped.
    ///
    /// # Errors
    /// The stream ends after its first error.
    async fn log(
        &self,
        container: &str,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<ExecOutput, Error>>, Error>;

    /// Runs a command in a running container, attached to its standard streams, without a TTY.
    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Exec, Error>;
}

/// Stops a container whose programs have `grace` to end by themselves, or until the user waits no longer.
pub(crate) async fn end_programs(
    engine: &dyn Engine,
    container: &str,
    grace: Duration,
    hurry: &CancellationToken,
) -> Result<(), Error> {
    let mut stopping = engine.stop_container(container, grace);
    tokio::select! {
        stopped = &mut stopping => return stopped,
        () = hurry.cancelled() => {}
    }
    engine.stop_container(container, Duration::ZERO).await?;
    stopping.await
}

/// Gives up on an engine that does not answer: whoever waits for the session's turn must get it in the end.
pub(crate) async fn in_time<T>(
    operation: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    in_time_beyond(Duration::ZERO, operation, work).await
}

/// Does the same for what the engine does only after a time that was asked for.
pub(crate) async fn in_time_beyond<T>(
    asked_for: Duration,
    operation: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let limit = asked_for + ANSWER_LIMIT;
    let result = tokio::time::timeout(limit, work).await;
    result.unwrap_or_else(|_elapsed| {
        Err(Error::EngineSilent {
            operation: operation.to_owned(),
            limit,
        })
    })
}

/// A tar archive on its way to an engine.
pub type Archive = BoxStream<'static, std::io::Result<Bytes>>;

/// An engine that has just answered.
#[derive(Clone)]
pub struct Connected {
    /// The way to it.
    pub engine: Arc<dyn Engine>,
    /// What it is.
    pub facts: EngineFacts,
}

/// What was found at a place where an engine may listen.
pub struct Found {
    /// The socket, pipe or address.
    pub address: String,
    /// Why this place was looked at, as `DOCKER_HOST` or `context colima`.
    pub source: String,
    /// The engine, or why none can be used there.
    pub outcome: Result<Connected, EngineProblem>,
}

/// The engine that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// What it calls itself, `Docker`.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// The processor of its containers, as the kernel calls it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Its socket, pipe or address.
    pub address: String,
    /// The command line by which the user may talk to it.
    pub command: EngineCommand,
    /// What the user's configuration adds to the environment of every container on it, as `NAME=value`: proxies.
    pub environment: Vec<String>,
    /// How its pulls describe layers.
    pub pull_dialect: PullDialect,
    /// How its networks keep sessions apart.
    pub network_kind: NetworkKind,
}

/// How the networks of an engine keep sessions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// One network for all sessions, within which the engine lets no container reach another.
    Shared,
    /// A network for each session, of which the engine lets none reach another.
    OfSession,
}

/// What the names of Cove's networks begin with.
pub(crate) const NETWORK_PREFIX: &str = "cove-net-";

/// The networks that engines put a container on that is told none: all on one of them reach each other.
pub(crate) const DEFAULT_NETWORKS: [&str; 2] = ["bridge", "podman"];

/// A network of Cove's on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it keeps apart what it should, as far as the engine says.
    pub separates: bool,
}

impl EngineFacts {
    /// Returns whether programs for a processor run on the engine's: its own, and the one of 32 bits that
    /// came before it.
    #[must_use]
    pub fn runs(&self, architecture: &str) -> bool {
        let has_before = matches!(
            (self.architecture.as_str(), architecture),
            ("x86_64", "i686") | ("aarch64", "arm")
        );
        has_before || self.architecture == architecture
    }
}

/// What an engine has for its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineCapacity {
    /// Processors; `None` when not known.
    pub processors: Option<u64>,
    /// Bytes of memory; `None` when not known.
    pub memory_bytes: Option<u64>,
    /// Whether it can limit the memory of a container.
    pub limits_memory: bool,
    /// Whether it can limit what a container swaps.
    pub limits_swap: bool,
}

/// Hears the name of a program that is waited for.
pub type Waits<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What the user has for a registry, lent for one pull and never kept.
#[derive(Debug, Clone, Default)]
pub struct Lent {
    /// The credential; `None` when there is none.
    pub credential: Option<Credential>,
    /// Why there may be one that could not be had.
    pub problem: Option<String>,
}

/// A credential for a registry, with the server that it is kept for.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The server.
        server: String,
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token for the authorisation server, which only the engine talks to.
    IdentityToken {
        /// The server.
        server: String,
        /// The token.
        token: String,
    },
    /// A token for the registry itself.
    RegistryToken {
        /// The server.
        server: String,
        /// The token.
        token: String,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of it belongs into a log.
        f.write_str("Credential")
    }
}

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its id, which names this content and no other.
    pub id: String,
    /// The processor that it is for, as the kernel calls it; empty when the image does not say.
    pub architecture: String,
    /// The user that it runs as, as the image spells it; empty means root.
    pub user: String,
    /// Whether it sets `HOME` itself, for whoever runs in it.
    pub sets_home: bool,
    /// The paths that it declares as volumes, sorted.
    pub volumes: Vec<String>,
    /// The digests of its layers' content, the lowest first.
    pub layers: Vec<String>,
}

/// A container on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its id, which stays when it is renamed.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it does.
    pub state: ContainerState,
    /// The exit code of its last run; 0 before it ever ran.
    pub exit_code: i64,
    /// The volumes that are mounted in it.
    pub volumes: Vec<MountedVolume>,
    /// The names of the networks that it is on, running or not.
    pub networks: Vec<String>,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// The volume's name.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
}

impl ContainerFacts {
    /// Returns whether the container is this session's: its label says so, and the session's volume is
    /// its `/workspace`. The label alone proves nothing, because a container inherits its image's labels.
    #[must_use]
    pub fn belongs_to(&self, id: SessionId) -> bool {
        let name = id.resource_name();
        labels::belong_to(&self.labels, id)
            && self
                .volumes
                .iter()
                .any(|volume| volume.name == name && volume.path == WORKSPACE)
    }

    /// Returns whether it is on a network of Cove's, and not on one where everybody reaches it.
    #[must_use]
    pub(crate) fn is_on_own_network(&self) -> bool {
        let is_default = |name: &String| DEFAULT_NETWORKS.contains(&name.as_str());
        self.networks
            .iter()
            .any(|name| name.starts_with(NETWORK_PREFIX))
            && !self.networks.iter().any(is_default)
    }
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It was never started.
    Created,
    /// It runs.
    Running,
    /// Its processes are held up.
    Paused,
    /// It ran, and does not now.
    Exited,
    /// It is being removed, or broken.
    Unusable,
}

/// A container to create.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its host name inside.
    pub hostname: String,
    /// The image's id.
    pub image: String,
    /// Process 1 and its arguments.
    pub command: Vec<String>,
    /// Environment, as `NAME=value`, beside the image's own.
    pub environment: Vec<String>,
    /// Labels.
    pub labels: Labels,
    /// The volume that is mounted, and where.
    pub volume: (String, String),
    /// The volumes that are mounted below it, and where.
    pub inner_volumes: Vec<(String, String)>,
    /// Processors; `None` for all.
    pub cpu_limit: Option<f64>,
    /// Bytes of memory; `None` for all.
    pub memory_limit: Option<u64>,
    /// Bytes of memory and swap together; `None` for what the engine makes of it.
    pub memory_and_swap_limit: Option<u64>,
    /// Processes.
    pub pids_limit: u64,
    /// Whether `sudo` and the like work.
    pub may_gain_privileges: bool,
    /// What it is connected to.
    pub network: ContainerNetwork,
}

/// What a new container is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// Nothing, for good.
    None,
    /// The engine's default network, until it is put on another one.
    Default,
    /// The network of this name.
    Named(String),
}

/// A command to run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The user, as the image spells it; empty means root.
    pub user: String,
    /// Where it runs.
    pub directory: String,
    /// Environment, as `NAME=value`, beside the container's own.
    pub environment: Vec<String>,
}

/// A command that runs in a container. Dropping it closes the command's input.
pub struct Exec {
    /// Its standard input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// Its output.
    pub output: BoxStream<'static, Result<ExecOutput, Error>>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// From standard output.
    Out(Bytes),
    /// From standard error.
    Err(Bytes),
}

/// What an engine tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A container or a volume may be another than before.
    Objects,
    /// The kernel ended a program of this container, because the container had used up its memory. Not all engines
    /// tell that, and some tell one end several times.
    OutOfMemory {
        /// The container's id.
        container: String,
    },
}

/// What of ours is on the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Containers.
    pub containers: Vec<ContainerFacts>,
    /// Labels of the volumes, by name.
    pub volumes: Vec<(String, Labels)>,
}

impl Owned {
    /// Keeps of what bears a session's label that which is a session's. Anybody can copy labels: a
    /// container needs the session's volume too, and a volume one of the session's names.
    #[must_use]
    pub fn of_labelled(
        containers: impl IntoIterator<Item = ContainerFacts>,
        volumes: impl IntoIterator<Item = (String, Labels)>,
    ) -> Self {
        let is_ours = |container: &ContainerFacts| {
            labels::session(&container.labels).is_some_and(|id| container.belongs_to(id))
        };
        let has_its_name = |(name, labels): &(String, Labels)| {
            labels::session(labels).is_some_and(|id| id.is_volume_name(name))
        };
        Self {
            containers: containers.into_iter().filter(is_ours).collect(),
            volumes: volumes.into_iter().filter(has_its_name).collect(),
        }
    }
}

/// A place where an engine may be, as the UI shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct EngineView {
    /// Tells it from all others; `null` where no engine was ever reached.
    pub engine_id: Option<EngineId>,
    /// What it calls itself, as `Docker`; where it was looked for, when it never answered.
    pub name: String,
    /// The socket, pipe or address.
    pub address: String,
    /// Why this place was looked at, as `DOCKER_HOST` or `context colima`.
    pub source: String,
    /// Its version; `null` when it does not answer.
    pub version: Option<String>,
    /// Whether new sessions are made on this one.
    pub selected: bool,
    /// Why it cannot be used; `null` when it can.
    pub problem: Option<EngineProblem>,
}

/// Why an engine cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct EngineProblem {
    /// Which of the known reasons it is.
    pub reason: EngineReason,
    /// What happened.
    pub message: String,
}

/// An image that is on the engine, as the UI shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct ImageView {
    /// The reference in its short form.
    pub image_name: String,
    /// Its size on the engine in bytes.
    pub size_bytes: u64,
}
