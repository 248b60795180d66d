//! An engine that is made up: it does what a script says, in time that is made up too, and writes
//! down what it was asked and when.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cove_agent::protocol::{Call, CallError, Decoder, Failure, Hello, Reply, Response, encode};
use cove_agent::streams::{Event, StreamId, Streams};
use cove_agent::tree::Piece;
use cove_core::assets::{Asset, Assets};
use cove_core::engine::{
    Archive, Change, Connected, ContainerFacts, ContainerNetwork, ContainerSpec, ContainerState,
    Engine, EngineCapacity, EngineFacts, EngineId, EngineIdentity, EngineProblem, Exec, ExecOutput,
    ExecSpec, Found, ImageFacts, ImageView, Labels, LayerSize, Lent, MountedVolume, NetworkFacts,
    NetworkKind, Owned, Places, PullDialect, PullMessage, Waits,
};
use cove_core::error::{EngineCommand, EngineReason, Error, NetworkReason};
use cove_core::figures::{ContainerLimits, Figures};
use cove_core::image::ImageReference;
use cove_core::labels;
use cove_core::session::SessionId;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How the next call of an operation goes.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It happens, and is answered, after this time.
    Late(Duration),
    /// It is refused.
    Fail(Error),
    /// It is never answered, and never happens.
    Never,
    /// It happens, and the answer is lost on the way: after this time the caller hears of a failure.
    Lost(Duration),
}

/// The engine and its script.
pub(crate) struct FakeEngine {
    identity: EngineIdentity,
    begin: Instant,
    /// How long every call takes at least.
    pace: Mutex<Duration>,
    script: Mutex<HashMap<&'static str, VecDeque<Act>>>,
    pull: Mutex<Vec<(Duration, PullMessage)>>,
    sizes: Mutex<Vec<LayerSize>>,
    /// Shared with the stream of every pull that somebody holds.
    pulling: Arc<()>,
    calls: Mutex<Vec<String>>,
    has_image: Mutex<bool>,
    /// Whether nobody answers at all.
    is_away: Mutex<bool>,
    /// By a container's id, what ends the commands that run in it.
    running: Mutex<HashMap<String, CancellationToken>>,
    volumes: Mutex<HashMap<String, Labels>>,
    containers: Mutex<Vec<ContainerFacts>>,
    networks: Mutex<HashMap<String, Labels>>,
    /// Whether it keeps the containers of one network apart.
    separates: Mutex<bool>,
    /// How many containers there have been.
    created: AtomicUsize,
    helper: Mutex<Option<Duration>>,
}

impl FakeEngine {
    /// Returns an engine that has every image and does everything at once.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            identity: EngineIdentity {
                id: EngineId::of(&["fake"]),
                name: "Fake".to_owned(),
                address: "fake".to_owned(),
            },
            begin: Instant::now(),
            pace: Mutex::default(),
            script: Mutex::default(),
            pull: Mutex::default(),
            sizes: Mutex::default(),
            pulling: Arc::new(()),
            calls: Mutex::default(),
            has_image: Mutex::new(true),
            is_away: Mutex::default(),
            running: Mutex::default(),
            volumes: Mutex::default(),
            containers: Mutex::default(),
            networks: Mutex::default(),
            separates: Mutex::new(true),
            created: AtomicUsize::new(0),
            helper: Mutex::default(),
        })
    }

    /// Adds to the script: how the next call of this operation goes that has no script yet.
    pub(crate) fn next(&self, operation: &'static str, act: Act) -> &Self {
        let mut script = self.script.lock().unwrap();
        script.entry(operation).or_default().push_back(act);
        drop(script);
        self
    }

    /// Lets every call take this long, before what the script says.
    pub(crate) fn take_its_time(&self, pace: Duration) {
        *self.pace.lock().unwrap() = pace;
    }

    /// Takes back what of the script has not been played.
    pub(crate) fn play_no_more(&self) {
        self.script.lock().unwrap().clear();
    }

    /// The engine answers no more, and every connection to it breaks.
    pub(crate) fn go_away(&self) {
        *self.is_away.lock().unwrap() = true;
        for (_, command) in self.running.lock().unwrap().drain() {
            command.cancel();
        }
    }

    /// The engine answers again.
    pub(crate) fn come_back(&self) {
        *self.is_away.lock().unwrap() = false;
    }

    /// Somebody else kills the container.
    pub(crate) fn kill(&self, name: &str) {
        self.set_state(name, ContainerState::Exited);
    }

    /// Somebody else removes the container.
    pub(crate) fn remove(&self, name: &str) {
        self.take_container(name);
    }

    /// Somebody else removes every network.
    pub(crate) fn remove_networks(&self) {
        self.networks.lock().unwrap().clear();
    }

    /// The engine cannot keep the containers of one network apart.
    pub(crate) fn separates_nothing(&self) {
        *self.separates.lock().unwrap() = false;
    }

    /// Returns the labels of the networks.
    pub(crate) fn networks(&self) -> Vec<Labels> {
        self.networks.lock().unwrap().values().cloned().collect()
    }

    /// Returns the network that a container is on.
    pub(crate) fn network_of(&self, container: &str) -> Option<String> {
        self.find(container)?.networks.first().cloned()
    }

    fn has_network(&self, name: &str) -> bool {
        self.networks.lock().unwrap().contains_key(name)
    }

    /// Returns what the container does, if there is one.
    pub(crate) fn container_state(&self, name: &str) -> Option<ContainerState> {
        self.find(name).map(|container| container.state)
    }

    /// Returns whether there is such a volume.
    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.volumes.lock().unwrap().contains_key(name)
    }

    /// The image is missing, and its pull says this, each message after that time.
    pub(crate) fn pulls(&self, messages: Vec<(Duration, PullMessage)>) {
        *self.has_image.lock().unwrap() = false;
        *self.pull.lock().unwrap() = messages;
    }

    /// Credentials are kept by a helper that takes this long.
    pub(crate) fn asks_a_helper(&self, takes: Duration) {
        *self.helper.lock().unwrap() = Some(takes);
    }

    /// The registry says that the layers are this large.
    pub(crate) fn weighs(&self, layers: &[(&str, u64)]) {
        let layers = layers.iter().map(|&(digest, bytes)| LayerSize {
            digest: digest.to_owned(),
            bytes,
        });
        *self.sizes.lock().unwrap() = layers.collect();
    }

    /// Returns whether a pull is under way.
    pub(crate) fn is_pulling(&self) -> bool {
        Arc::strong_count(&self.pulling) > 1
    }

    /// Returns what was asked so far that changes something: milliseconds and operation.
    pub(crate) fn changes(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let looks = [
            "facts",
            "capacity",
            "image",
            "networks",
            "layer_sizes",
            "volume",
            "container",
            "owned",
            "changes",
            "exec",
        ];
        let changes = calls.iter().filter(|call| {
            let operation = call.split(' ').nth(1).unwrap();
            !looks.contains(&operation)
        });
        changes.cloned().collect()
    }

    /// Returns how often this was asked.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        let of = |call: &&String| call.split(' ').nth(1) == Some(operation);
        calls.iter().filter(of).count()
    }

    /// Returns how many calls there were.
    pub(crate) fn call_count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// Returns how many containers and volumes there are.
    pub(crate) fn holds(&self) -> (usize, usize) {
        (
            self.containers.lock().unwrap().len(),
            self.volumes.lock().unwrap().len(),
        )
    }

    /// Begins a call: what comes back is what its answer suffers, if anything.
    async fn act(&self, operation: &'static str) -> Result<Answer, Error> {
        let at = self.begin.elapsed().as_millis();
        self.calls.lock().unwrap().push(format!("{at} {operation}"));
        let pace = *self.pace.lock().unwrap();
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        if *self.is_away.lock().unwrap() {
            return Err(away());
        }
        let act = {
            let mut script = self.script.lock().unwrap();
            script.get_mut(operation).and_then(VecDeque::pop_front)
        };
        match act {
            None => Ok(Answer(None)),
            Some(Act::Late(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(Answer(None))
            }
            Some(Act::Fail(error)) => Err(error),
            Some(Act::Never) => std::future::pending().await,
            Some(Act::Lost(after)) => Ok(Answer(Some(after))),
        }
    }

    /// Finds a container by its name or its id.
    fn find(&self, container: &str) -> Option<ContainerFacts> {
        let containers = self.containers.lock().unwrap();
        containers
            .iter()
            .find(|facts| is(facts, container))
            .cloned()
    }

    fn end_commands(&self, container: &str) {
        if let Some(facts) = self.find(container)
            && let Some(commands) = self.running.lock().unwrap().remove(&facts.id)
        {
            commands.cancel();
        }
    }

    /// Takes a container away, and returns whether there was one.
    fn take_container(&self, container: &str) -> bool {
        self.end_commands(container);
        let mut containers = self.containers.lock().unwrap();
        let before = containers.len();
        containers.retain(|facts| !is(facts, container));
        containers.len() < before
    }

    fn rename(&self, container: &str, name: &str) -> Result<(), Error> {
        if self.find(name).is_some() {
            return Err(refused("rename the container", "the name is in use"));
        }
        self.must_exist("rename the container", container)?;
        self.change(container, |facts| name.clone_into(&mut facts.name));
        Ok(())
    }

    fn change(&self, container: &str, change: impl FnOnce(&mut ContainerFacts)) {
        let mut containers = self.containers.lock().unwrap();
        if let Some(facts) = containers.iter_mut().find(|facts| is(facts, container)) {
            change(facts);
        }
    }

    fn ensure_volume(&self, name: &str, labels: &Labels) {
        let mut volumes = self.volumes.lock().unwrap();
        let create = || labels.clone();
        volumes.entry(name.to_owned()).or_insert_with(create);
    }

    fn must_exist(&self, operation: &str, name: &str) -> Result<(), Error> {
        match self.container_state(name) {
            Some(_) => Ok(()),
            None => Err(refused(operation, "there is no such container")),
        }
    }

    fn set_state(&self, name: &str, state: ContainerState) {
        if !matches!(state, ContainerState::Running | ContainerState::Paused) {
            self.end_commands(name);
        }
        self.change(name, |facts| facts.state = state);
    }
}

fn is(facts: &ContainerFacts, container: &str) -> bool {
    facts.name == container || facts.id == container
}

/// The answer of a call that has happened.
struct Answer(Option<Duration>);

impl Answer {
    /// Gives the answer, or loses it.
    async fn give<T>(self, answer: T) -> Result<T, Error> {
        match self.0 {
            None => Ok(answer),
            Some(after) => {
                tokio::time::sleep(after).await;
                Err(away())
            }
        }
    }
}

/// Returns the failure of a call to an engine that is gone.
pub(crate) fn away() -> Error {
    Error::EngineUnavailable {
        reason: EngineReason::NotRunning,
        message: "made up".to_owned(),
    }
}

/// Returns an agent and a built-in image without content.
pub(crate) fn fake_assets() -> Assets {
    let asset = |content: Vec<u8>| Asset {
        architecture: "x86_64".into(),
        content: content.into(),
    };
    let packed = GzEncoder::new(Vec::new(), Compression::default());
    let mut archive = tar::Builder::new(packed);
    for (name, content) in [
        ("manifest.json", r#"[{"Config":"config.json"}]"#),
        (
            "config.json",
            r#"{"config":{"User":""},"rootfs":{"diff_ids":[]}}"#,
        ),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    let packed = archive.into_inner().unwrap();
    Assets::new(
        vec![asset(b"made up".to_vec())],
        vec![asset(packed.finish().unwrap())],
    )
}

/// The one place, where the engine listens.
pub(crate) struct FakePlaces(pub(crate) Arc<FakeEngine>);

impl FakePlaces {
    /// Finding it is not part of the script and takes no time.
    fn connect(&self) -> Result<Connected, EngineProblem> {
        let engine: Arc<dyn Engine> = self.0.clone();
        if *self.0.is_away.lock().unwrap() {
            return Err(EngineProblem {
                reason: EngineReason::NotRunning,
                message: "made up".to_owned(),
            });
        }
        Ok(Connected {
            engine,
            facts: facts(),
        })
    }
}

#[async_trait]
impl Places for FakePlaces {
    fn is_named(&self) -> bool {
        true
    }

    async fn survey(&self) -> Vec<Found> {
        vec![Found {
            address: "fake".to_owned(),
            source: "made up".to_owned(),
            outcome: self.connect(),
        }]
    }

    async fn first(&self) -> Result<Connected, Error> {
        self.connect().map_err(|_| away())
    }

    async fn find(&self, _: &EngineIdentity) -> Result<Connected, EngineProblem> {
        self.connect()
    }
}

fn facts() -> EngineFacts {
    EngineFacts {
        name: "Fake".to_owned(),
        version: Some("1".to_owned()),
        architecture: "x86_64".to_owned(),
        address: "fake".to_owned(),
        command: EngineCommand::Docker,
        environment: vec!["HTTP_PROXY=http://proxy:3128".to_owned()],
        pull_dialect: PullDialect::AtOnce,
        network_kind: NetworkKind::Shared,
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn identity(&self) -> &EngineIdentity {
        &self.identity
    }

    async fn facts(&self) -> Result<EngineFacts, Error> {
        self.act("facts").await?;
        Ok(facts())
    }

    async fn capacity(&self) -> Result<EngineCapacity, Error> {
        self.act("capacity").await?;
        Ok(EngineCapacity {
            processors: Some(4),
            memory_bytes: Some(8 << 30),
            limits_memory: true,
            limits_swap: true,
        })
    }

    async fn image(&self, _: &ImageReference) -> Result<Option<ImageFacts>, Error> {
        self.act("image").await?;
        let has_image = *self.has_image.lock().unwrap();
        Ok(has_image.then(|| ImageFacts {
            id: "sha256:made-up".to_owned(),
            architecture: "x86_64".to_owned(),
            user: String::new(),
            sets_home: false,
            volumes: Vec::new(),
            layers: Vec::new(),
        }))
    }

    async fn images(&self) -> Result<Vec<ImageView>, Error> {
        Ok(Vec::new())
    }

    async fn credential(&self, _: &ImageReference, waits: Waits<'_>) -> Lent {
        let wait = *self.helper.lock().unwrap();
        if let Some(wait) = wait {
            waits("docker-credential-fake");
            tokio::time::sleep(wait).await;
        }
        Lent::default()
    }

    async fn pull(
        &self,
        _: &ImageReference,
        _: &Lent,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error> {
        let Answer(breaks_after) = self.act("pull").await?;
        *self.has_image.lock().unwrap() = breaks_after.is_none();
        let messages = self.pull.lock().unwrap().clone();
        let held = Arc::clone(&self.pulling);
        let messages = stream::iter(messages).then(move |(after, message)| {
            let held = Arc::clone(&held);
            async move {
                tokio::time::sleep(after).await;
                drop(held);
                Ok(message)
            }
        });
        Ok(match breaks_after {
            None => messages.boxed(),
            Some(after) => {
                let breaks = async { Err(away()) };
                messages
                    .take_until(tokio::time::sleep(after))
                    .chain(stream::once(breaks))
                    .boxed()
            }
        })
    }

    async fn layer_sizes(
        &self,
        _: &ImageReference,
        _: &str,
        _: &Lent,
    ) -> Result<Vec<LayerSize>, Error> {
        self.act("layer_sizes").await?;
        Ok(self.sizes.lock().unwrap().clone())
    }

    async fn load_image(&self, _: Bytes) -> Result<(), Error> {
        let answer = self.act("load_image").await?;
        *self.has_image.lock().unwrap() = true;
        answer.give(()).await
    }

    async fn volume(&self, name: &str) -> Result<Option<Labels>, Error> {
        self.act("volume").await?;
        Ok(self.volumes.lock().unwrap().get(name).cloned())
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error> {
        let answer = self.act("create_volume").await?;
        // One that exists already stays as it is.
        self.ensure_volume(name, labels);
        answer.give(()).await
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        let answer = self.act("remove_volume").await?;
        // A container that was set aside uses it too.
        let uses = |facts: &ContainerFacts| facts.name.starts_with(name);
        if self.containers.lock().unwrap().iter().any(uses) {
            return Err(refused("remove the volume", "volume is in use"));
        }
        let existed = self.volumes.lock().unwrap().remove(name).is_some();
        answer.give(existed).await
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error> {
        self.act("container").await?;
        Ok(self.find(name))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let answer = self.act("create_container").await?;
        if self.container_state(&spec.name).is_some() {
            return Err(refused("create the container", "the name is in use"));
        }
        // An engine makes the volume that a container wants, without labels.
        self.ensure_volume(&spec.volume.0, &Labels::new());
        for (name, _) in &spec.inner_volumes {
            self.ensure_volume(name, &Labels::new());
        }
        let id = format!("id-{}", self.created.fetch_add(1, Ordering::SeqCst));
        let facts = ContainerFacts {
            id: id.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            state: ContainerState::Created,
            exit_code: 0,
            volumes: vec![MountedVolume {
                name: spec.volume.0.clone(),
                path: spec.volume.1.clone(),
            }],
            networks: match &spec.network {
                ContainerNetwork::Named(network) => vec![network.clone()],
                ContainerNetwork::Default => vec!["bridge".to_owned()],
                ContainerNetwork::None => vec!["none".to_owned()],
            },
        };
        self.containers.lock().unwrap().push(facts);
        answer.give(id).await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), Error> {
        let answer = self.act("rename_container").await?;
        self.rename(container, name)?;
        answer.give(()).await
    }

    async fn upload(&self, name: &str, _: &str, mut archive: Archive) -> Result<(), Error> {
        let answer = self.act("upload").await?;
        self.must_exist("copy the agent", name)?;
        while let Some(piece) = archive.next().await {
            piece.map_err(|error| refused("copy files into the container", &error.to_string()))?;
        }
        answer.give(()).await
    }

    async fn download(
        &self,
        name: &str,
        _: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.act("download").await?;
        self.must_exist("copy files out of the container", name)?;
        Ok(stream::iter([Ok(Bytes::from_static(&[0; 1024]))]).boxed())
    }

    async fn start_container(&self, name: &str) -> Result<(), Error> {
        let answer = self.act("start_container").await?;
        self.must_exist("start the container", name)?;
        let is_gone =
            |network: &String| network.starts_with("cove-net-") && !self.has_network(network);
        if self.network_of(name).is_some_and(|it| is_gone(&it)) {
            let operation = "start the container".to_owned();
            return Err(Error::NetworkGone { operation });
        }
        self.set_state(name, ContainerState::Running);
        answer.give(()).await
    }

    async fn networks(&self) -> Result<Vec<NetworkFacts>, Error> {
        let answer = self.act("networks").await?;
        let networks = self.networks.lock().unwrap().clone();
        let facts = networks.into_iter().map(|(name, labels)| NetworkFacts {
            name,
            labels,
            separates: true,
        });
        answer.give(facts.collect()).await
    }

    async fn create_network(
        &self,
        name: &str,
        labels: &Labels,
        kind: NetworkKind,
    ) -> Result<(), Error> {
        let answer = self.act("create_network").await?;
        if kind == NetworkKind::Shared && !*self.separates.lock().unwrap() {
            return Err(Error::NetworkUnavailable {
                operation: "create the network".to_owned(),
                reason: NetworkReason::NotSeparated,
                message: "made up".to_owned(),
                command: EngineCommand::Docker,
            });
        }
        let make = || {
            self.networks
                .lock()
                .unwrap()
                .insert(name.to_owned(), labels.clone())
        };
        make();
        answer.give(()).await
    }

    async fn remove_network(&self, name: &str) -> Result<bool, Error> {
        let answer = self.act("remove_network").await?;
        let is_used = {
            let containers = self.containers.lock().unwrap();
            let uses = |facts: &ContainerFacts| facts.networks.iter().any(|it| it == name);
            containers.iter().any(uses)
        };
        let removed = !is_used && self.networks.lock().unwrap().remove(name).is_some();
        answer.give(removed).await
    }

    async fn connect_container(&self, container: &str, network: &str) -> Result<(), Error> {
        let answer = self.act("connect_container").await?;
        self.must_exist("connect the container", container)?;
        if !self.has_network(network) {
            let operation = "connect the container".to_owned();
            return Err(Error::NetworkGone { operation });
        }
        self.change(container, |facts| facts.networks = vec![network.to_owned()]);
        answer.give(()).await
    }

    async fn stop_container(&self, name: &str, _: Duration) -> Result<(), Error> {
        let answer = self.act("stop_container").await?;
        let state = self.container_state(name);
        if matches!(
            state,
            Some(ContainerState::Running | ContainerState::Paused)
        ) {
            self.set_state(name, ContainerState::Exited);
        }
        answer.give(()).await
    }

    async fn unpause_container(&self, name: &str) -> Result<(), Error> {
        self.act("unpause_container").await?;
        if self.container_state(name) == Some(ContainerState::Paused) {
            self.set_state(name, ContainerState::Running);
        }
        Ok(())
    }

    async fn pause_container(&self, name: &str) -> Result<(), Error> {
        self.act("pause_container").await?;
        self.set_state(name, ContainerState::Paused);
        Ok(())
    }

    async fn remove_container(&self, name: &str) -> Result<bool, Error> {
        let answer = self.act("remove_container").await?;
        let existed = self.take_container(name);
        answer.give(existed).await
    }

    async fn owned(&self, session: Option<SessionId>) -> Result<Owned, Error> {
        self.act("owned").await?;
        let is_wanted = |labels: &Labels| match session {
            Some(id) => labels::belong_to(labels, id),
            None => labels.contains_key(labels::SESSION),
        };
        let containers = self.containers.lock().unwrap();
        let containers = containers.iter().filter(|facts| is_wanted(&facts.labels));
        let volumes = self.volumes.lock().unwrap();
        let volumes = volumes.iter().filter(|(_, labels)| is_wanted(labels));
        Ok(Owned::of_labelled(
            containers.cloned(),
            volumes.map(|(name, labels)| (name.clone(), labels.clone())),
        ))
    }

    async fn changes(&self) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        self.act("changes").await?;
        Ok(stream::pending().boxed())
    }

    async fn figures(&self, _: &str) -> Result<BoxStream<'static, Result<Figures, Error>>, Error> {
        self.act("figures").await?;
        Ok(stream::pending().boxed())
    }

    async fn limits(&self, _: &str) -> Result<ContainerLimits, Error> {
        self.act("limits").await?;
        Ok(ContainerLimits::default())
    }

    async fn log(
        &self,
        _: &str,
        _: usize,
        _: bool,
    ) -> Result<BoxStream<'static, Result<ExecOutput, Error>>, Error> {
        self.act("log").await?;
        Ok(stream::empty().boxed())
    }

    async fn exec(&self, name: &str, spec: &ExecSpec) -> Result<Exec, Error> {
        self.act("exec").await?;
        let container = self.find(name);
        let Some(container) =
            container.filter(|container| container.state == ContainerState::Running)
        else {
            return Err(refused("run a command", "the container does not run"));
        };
        let mut running = self.running.lock().unwrap();
        let ends = running.entry(container.id).or_default().clone();
        drop(running);
        let (input, requests) = tokio::io::duplex(64 * 1024);
        match spec.command.get(1).map(String::as_str) {
            // Its agent knows nothing of files: the engine packs them.
            Some("pack") => {
                return Ok(Exec {
                    input: Box::pin(input),
                    output: stream::empty().boxed(),
                });
            }
            Some("unpack") => {
                let answer = stream::once(taken_in(requests));
                return Ok(Exec {
                    input: Box::pin(input),
                    output: answer.take_until(ends.cancelled_owned()).boxed(),
                });
            }
            _ => {}
        }
        Ok(Exec {
            input: Box::pin(input),
            output: stream::unfold(FakeAgent::new(requests), FakeAgent::step)
                .take_until(ends.cancelled_owned())
                .boxed(),
        })
    }
}

/// Takes in files to their end, and says that they are in place.
async fn taken_in(mut told: DuplexStream) -> Result<ExecOutput, Error> {
    let mut decoder = Decoder::<Piece>::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            if frame.header == Piece::End {
                let answer = encode(&Piece::End, &[]).unwrap();
                return Ok(ExecOutput::Out(answer.into()));
            }
        }
        match told.read(&mut buffer).await {
            Ok(count @ 1..) => decoder.push(&buffer[..count]),
            Ok(0) | Err(_) => return Err(refused("run a command", "its input ended")),
        }
    }
}

/// An agent that is ready, and can do nothing else. It ends with its input.
struct FakeAgent {
    input: DuplexStream,
    streams: Streams,
    asked: HashMap<StreamId, Decoder<Call>>,
}

impl FakeAgent {
    fn new(input: DuplexStream) -> Self {
        Self {
            input,
            streams: Streams::agent(),
            asked: HashMap::new(),
        }
    }

    async fn step(mut self) -> Option<(Result<ExecOutput, Error>, Self)> {
        let mut buffer = [0; 4096];
        while !self.streams.has_something_to_send() {
            let count = self.input.read(&mut buffer).await.ok()?;
            if count == 0 {
                return None;
            }
            for event in self.streams.receive(&buffer[..count]).unwrap() {
                match event {
                    Event::Opened(id) => drop(self.asked.insert(id, Decoder::new())),
                    Event::Arrived(id, bytes) => {
                        let decoder = self.asked.get_mut(&id).unwrap();
                        decoder.push(&bytes);
                        if let Some(frame) = decoder.next_frame().unwrap() {
                            let result = answer(&frame.header);
                            let answer = encode(&Response { result }, &[]).unwrap();
                            self.streams.send(id, &answer);
                            self.streams.finish(id);
                        }
                    }
                    Event::Finished(_) | Event::Reset(_) => {}
                }
            }
        }
        let mut bytes = Vec::new();
        self.streams.fetch(&mut bytes, usize::MAX);
        Some((Ok(ExecOutput::Out(bytes.into())), self))
    }
}

fn answer(call: &Call) -> Result<Reply, CallError> {
    match call {
        Call::Hello { protocol } => Ok(Reply::Hello(Hello {
            protocol: *protocol,
            agent_version: String::new(),
            uid: 0,
            gid: 0,
            user: None,
            workspace_writable: true,
        })),
        Call::Terminals => Ok(Reply::Terminals {
            tabs: Vec::new(),
            terminals: Vec::new(),
        }),
        _ => Err(CallError {
            failure: Failure::Io,
            message: "made up".to_owned(),
        }),
    }
}

/// Returns an engine's refusal.
pub(crate) fn refused(operation: &str, message: &str) -> Error {
    Error::EngineRefused {
        operation: operation.to_owned(),
        status: Some(409),
        message: message.to_owned(),
    }
}
