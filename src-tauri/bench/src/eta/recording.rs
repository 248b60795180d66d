//! Writes down what passes between Cove and the engine, and what Cove tells, without changing either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cove_core::engine::docker::DockerPlaces;
use cove_core::engine::{
    Archive, Change, Connected, ContainerFacts, ContainerSpec, Engine, EngineCapacity, EngineFacts,
    EngineIdentity, EngineProblem, Exec, ExecOutput, ExecSpec, Found, ImageFacts, ImageView,
    Labels, LayerSize, Lent, NetworkFacts, NetworkKind, Owned, Places, PullMessage, Waits,
};
use cove_core::error::Error;
use cove_core::event::{Reporter, SessionEvent};
use cove_core::figures::{ContainerLimits, Figures};
use cove_core::image::ImageReference;
use cove_core::session::SessionId;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::trace::{Call, Manifest, Message};

/// What was heard of one run so far, and when.
pub(crate) struct Recorder {
    tape: Mutex<Tape>,
    ended: Notify,
}

/// What was heard of one run.
pub(crate) struct Tape {
    begin: Instant,
    pub(crate) messages: Vec<Message>,
    pub(crate) manifest: Option<Manifest>,
    /// With milliseconds since the begin.
    pub(crate) events: Vec<(f64, SessionEvent)>,
    pub(crate) calls: Vec<Call>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tape: Mutex::new(Tape::new()),
            ended: Notify::new(),
        })
    }

    /// Begins a new tape: its time counts from now.
    pub(crate) fn begin(&self) {
        *self.tape() = Tape::new();
    }

    /// Waits for the terminal event and returns the tape.
    pub(crate) async fn end(&self) -> Tape {
        self.ended.notified().await;
        std::mem::replace(&mut *self.tape(), Tape::new())
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock()
    }

    async fn call<T>(&self, name: &str, call: impl Future<Output = T>) -> T {
        let begin_ms = self.tape().now();
        let answer = call.await;
        let mut tape = self.tape();
        let end_ms = tape.now();
        let name = name.to_owned();
        tape.calls.push(Call {
            name,
            begin_ms,
            end_ms,
        });
        answer
    }
}

impl Tape {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            messages: Vec::new(),
            manifest: None,
            events: Vec::new(),
            calls: Vec::new(),
        }
    }

    fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64() * 1e3
    }
}

/// Hears what Cove tells.
pub(crate) struct Ear(pub(crate) Arc<Recorder>);

impl Reporter for Ear {
    fn report(&self, event: &SessionEvent) {
        let mut tape = self.0.tape();
        let now = tape.now();
        tape.events.push((now, event.clone()));
        drop(tape);
        if event.is_terminal() {
            self.0.ended.notify_one();
        }
    }
}

/// The places of a real engine.
pub(crate) struct RecordedPlaces {
    pub(crate) places: DockerPlaces,
    pub(crate) recorder: Arc<Recorder>,
}

impl RecordedPlaces {
    fn record(&self, connected: Connected) -> Connected {
        Connected {
            engine: Arc::new(RecordedEngine {
                engine: connected.engine,
                recorder: Arc::clone(&self.recorder),
            }),
            ..connected
        }
    }
}

#[async_trait]
impl Places for RecordedPlaces {
    fn is_named(&self) -> bool {
        self.places.is_named()
    }

    async fn survey(&self) -> Vec<Found> {
        self.places.survey().await
    }

    async fn first(&self) -> Result<Connected, Error> {
        let call = self.places.first();
        let connected = self.recorder.call("connect", call).await;
        connected.map(|connected| self.record(connected))
    }

    async fn find(&self, engine: &EngineIdentity) -> Result<Connected, EngineProblem> {
        let connected = self.places.find(engine).await;
        connected.map(|connected| self.record(connected))
    }
}

/// A real engine; what it answers is passed on as it is.
struct RecordedEngine {
    engine: Arc<dyn Engine>,
    recorder: Arc<Recorder>,
}

#[async_trait]
impl Engine for RecordedEngine {
    fn identity(&self) -> &EngineIdentity {
        self.engine.identity()
    }

    async fn facts(&self) -> Result<EngineFacts, Error> {
        let call = self.engine.facts();
        self.recorder.call("facts", call).await
    }

    async fn capacity(&self) -> Result<EngineCapacity, Error> {
        self.engine.capacity().await
    }

    async fn image(&self, image: &ImageReference) -> Result<Option<ImageFacts>, Error> {
        let call = self.engine.image(image);
        self.recorder.call("image", call).await
    }

    async fn images(&self) -> Result<Vec<ImageView>, Error> {
        self.engine.images().await
    }

    async fn credential(&self, image: &ImageReference, waits: Waits<'_>) -> Lent {
        self.engine.credential(image, waits).await
    }

    async fn pull(
        &self,
        image: &ImageReference,
        lent: &Lent,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error> {
        let call = self.engine.pull(image, lent);
        let stream = self.recorder.call("pull", call).await?;
        let recorder = Arc::clone(&self.recorder);
        let tee = stream.inspect(move |message| {
            if let Ok(message) = message {
                let mut tape = recorder.tape();
                let at_ms = tape.now();
                let said = message.clone();
                tape.messages.push(Message { at_ms, said });
            }
        });
        Ok(tee.boxed())
    }

    async fn layer_sizes(
        &self,
        image: &ImageReference,
        architecture: &str,
        lent: &Lent,
    ) -> Result<Vec<LayerSize>, Error> {
        let call = self.engine.layer_sizes(image, architecture, lent);
        let layers = self.recorder.call("layer_sizes", call).await?;
        let mut tape = self.recorder.tape();
        let at_ms = tape.now();
        let listed = layers
            .iter()
            .map(|layer| (layer.digest.clone(), layer.bytes));
        let layers_told = listed.collect();
        tape.manifest = Some(Manifest {
            at_ms,
            layers: layers_told,
        });
        drop(tape);
        Ok(layers)
    }

    async fn load_image(&self, archive: Bytes) -> Result<(), Error> {
        let call = self.engine.load_image(archive);
        self.recorder.call("load_image", call).await
    }

    async fn volume(&self, name: &str) -> Result<Option<Labels>, Error> {
        let call = self.engine.volume(name);
        self.recorder.call("volume", call).await
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error> {
        let call = self.engine.create_volume(name, labels);
        self.recorder.call("create_volume", call).await
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        let call = self.engine.remove_volume(name);
        self.recorder.call("remove_volume", call).await
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error> {
        let call = self.engine.container(name);
        self.recorder.call("container", call).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let call = self.engine.create_container(spec);
        self.recorder.call("create_container", call).await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), Error> {
        self.engine.rename_container(container, name).await
    }

    async fn upload(&self, container: &str, folder: &str, archive: Archive) -> Result<(), Error> {
        let call = self.engine.upload(container, folder, archive);
        self.recorder.call("upload", call).await
    }

    async fn download(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.engine.download(container, path).await
    }

    async fn networks(&self) -> Result<Vec<NetworkFacts>, Error> {
        self.engine.networks().await
    }

    async fn create_network(
        &self,
        name: &str,
        labels: &Labels,
        kind: NetworkKind,
    ) -> Result<(), Error> {
        let call = self.engine.create_network(name, labels, kind);
        self.recorder.call("create_network", call).await
    }

    async fn remove_network(&self, name: &str) -> Result<bool, Error> {
        self.engine.remove_network(name).await
    }

    async fn connect_container(&self, container: &str, network: &str) -> Result<(), Error> {
        let call = self.engine.connect_container(container, network);
        self.recorder.call("connect_container", call).await
    }

    async fn unpause_container(&self, name: &str) -> Result<(), Error> {
        self.engine.unpause_container(name).await
    }

    async fn pause_container(&self, name: &str) -> Result<(), Error> {
        self.engine.pause_container(name).await
    }

    async fn start_container(&self, name: &str) -> Result<(), Error> {
        let call = self.engine.start_container(name);
        self.recorder.call("start_container", call).await
    }

    async fn stop_container(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let call = self.engine.stop_container(name, grace);
        self.recorder.call("stop_container", call).await
    }

    async fn remove_container(&self, name: &str) -> Result<bool, Error> {
        let call = self.engine.remove_container(name);
        self.recorder.call("remove_container", call).await
    }

    async fn owned(&self, session: Option<SessionId>) -> Result<Owned, Error> {
        let call = self.engine.owned(session);
        self.recorder.call("owned", call).await
    }

    async fn changes(&self) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        self.engine.changes().await
    }

    async fn figures(
        &self,
        container: &str,
    ) -> Result<BoxStream<'static, Result<Figures, Error>>, Error> {
        self.engine.figures(container).await
    }

    async fn limits(&self, container: &str) -> Result<ContainerLimits, Error> {
        self.engine.limits(container).await
    }

    async fn log(
        &self,
        container: &str,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<ExecOutput, Error>>, Error> {
        self.engine.log(container, tail, follow).await
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Exec, Error> {
        let call = self.engine.exec(container, spec);
        self.recorder.call("exec", call).await
    }
}
