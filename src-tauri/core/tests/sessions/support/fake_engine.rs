//! An engine that is made up: it does what a script says, in time that is made up too, and writes
//! down what it was asked and when.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cove_agent::protocol::{
    Call, CallError, Decoder, Failure, Hello, Reply, Request, Response, encode,
};
use cove_core::assets::{Asset, Assets};
use cove_core::engine::{
    ContainerFacts, ContainerSpec, ContainerState, Engine, EngineFacts, EngineView, Exec,
    ExecOutput, ExecSpec, ImageFacts, ImageView, Labels, LayerSize, LayerTelling, Owned,
    PullMessage,
};
use cove_core::error::Error;
use cove_core::image::ImageReference;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::time::Instant;

/// How the next call of an operation goes.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It happens, and is answered, after this time.
    Late(Duration),
    /// It is refused.
    Fail(Error),
    /// It is never answered, and never happens.
    Never,
}

/// The engine and its script.
pub(crate) struct FakeEngine {
    begin: Instant,
    script: Mutex<HashMap<&'static str, VecDeque<Act>>>,
    pull: Mutex<Vec<(Duration, PullMessage)>>,
    sizes: Mutex<Vec<LayerSize>>,
    /// Shared with the stream of every pull that somebody holds.
    pulling: Arc<()>,
    calls: Mutex<Vec<String>>,
    has_image: Mutex<bool>,
    volumes: Mutex<HashMap<String, Labels>>,
    containers: Mutex<HashMap<String, ContainerFacts>>,
}

impl FakeEngine {
    /// Returns an engine that has every image and does everything at once.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            script: Mutex::default(),
            pull: Mutex::default(),
            sizes: Mutex::default(),
            pulling: Arc::new(()),
            calls: Mutex::default(),
            has_image: Mutex::new(true),
            volumes: Mutex::default(),
            containers: Mutex::default(),
        })
    }

    /// Adds to the script: how the next call of this operation goes that has no script yet.
    pub(crate) fn next(&self, operation: &'static str, act: Act) -> &Self {
        let mut script = self.script.lock().unwrap();
        script.entry(operation).or_default().push_back(act);
        drop(script);
        self
    }

    /// The image is missing, and its pull says this, each message after that time.
    pub(crate) fn pulls(&self, messages: Vec<(Duration, PullMessage)>) {
        *self.has_image.lock().unwrap() = false;
        *self.pull.lock().unwrap() = messages;
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
            "connect",
            "image",
            "layer_sizes",
            "volume",
            "container",
            "owned",
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

    async fn act(&self, operation: &'static str) -> Result<(), Error> {
        let at = self.begin.elapsed().as_millis();
        self.calls.lock().unwrap().push(format!("{at} {operation}"));
        let act = {
            let mut script = self.script.lock().unwrap();
            script.get_mut(operation).and_then(VecDeque::pop_front)
        };
        match act {
            None => Ok(()),
            Some(Act::Late(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Some(Act::Fail(error)) => Err(error),
            Some(Act::Never) => std::future::pending().await,
        }
    }

    fn set_state(&self, name: &str, state: ContainerState) {
        if let Some(container) = self.containers.lock().unwrap().get_mut(name) {
            container.state = state;
        }
    }
}

/// Returns an agent and a built-in image without content: nothing here unpacks them.
pub(crate) fn fake_assets() -> Assets {
    let asset = || Asset {
        architecture: "x86_64".into(),
        content: Bytes::from_static(b"made up"),
    };
    Assets {
        agents: vec![asset()],
        base_images: vec![asset()],
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn connect(&self) -> Result<EngineFacts, Error> {
        self.act("connect").await?;
        Ok(EngineFacts {
            name: "Fake 1".to_owned(),
            architecture: "x86_64".to_owned(),
            address: "fake".to_owned(),
            layer_telling: LayerTelling::AtOnce,
        })
    }

    async fn survey(&self) -> Vec<EngineView> {
        Vec::new()
    }

    async fn image(&self, _: &ImageReference) -> Result<Option<ImageFacts>, Error> {
        self.act("image").await?;
        let has_image = *self.has_image.lock().unwrap();
        Ok(has_image.then(|| ImageFacts {
            architecture: "x86_64".to_owned(),
            user: String::new(),
        }))
    }

    async fn images(&self) -> Result<Vec<ImageView>, Error> {
        Ok(Vec::new())
    }

    async fn pull(
        &self,
        _: &ImageReference,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error> {
        self.act("pull").await?;
        *self.has_image.lock().unwrap() = true;
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
        Ok(messages.boxed())
    }

    async fn layer_sizes(&self, _: &ImageReference, _: &str) -> Result<Vec<LayerSize>, Error> {
        self.act("layer_sizes").await?;
        Ok(self.sizes.lock().unwrap().clone())
    }

    async fn load_image(&self, _: Bytes) -> Result<(), Error> {
        self.act("load_image").await?;
        *self.has_image.lock().unwrap() = true;
        Ok(())
    }

    async fn volume(&self, name: &str) -> Result<Option<Labels>, Error> {
        self.act("volume").await?;
        Ok(self.volumes.lock().unwrap().get(name).cloned())
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error> {
        self.act("create_volume").await?;
        let mut volumes = self.volumes.lock().unwrap();
        volumes.insert(name.to_owned(), labels.clone());
        Ok(())
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        self.act("remove_volume").await?;
        if self.containers.lock().unwrap().contains_key(name) {
            return Err(refused("remove the volume", "volume is in use"));
        }
        Ok(self.volumes.lock().unwrap().remove(name).is_some())
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error> {
        self.act("container").await?;
        Ok(self.containers.lock().unwrap().get(name).cloned())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), Error> {
        self.act("create_container").await?;
        // An engine makes the volume that a container wants, without labels.
        let mut volumes = self.volumes.lock().unwrap();
        volumes.entry(spec.volume.0.clone()).or_default();
        drop(volumes);
        let facts = ContainerFacts {
            labels: spec.labels.clone(),
            state: ContainerState::Created,
            exit_code: 0,
        };
        self.containers
            .lock()
            .unwrap()
            .insert(spec.name.clone(), facts);
        Ok(())
    }

    async fn upload(&self, _: &str, _: Bytes) -> Result<(), Error> {
        self.act("upload").await
    }

    async fn start_container(&self, name: &str) -> Result<(), Error> {
        self.act("start_container").await?;
        self.set_state(name, ContainerState::Running);
        Ok(())
    }

    async fn stop_container(&self, name: &str) -> Result<(), Error> {
        self.act("stop_container").await?;
        self.set_state(name, ContainerState::Exited);
        Ok(())
    }

    async fn remove_container(&self, name: &str) -> Result<bool, Error> {
        self.act("remove_container").await?;
        Ok(self.containers.lock().unwrap().remove(name).is_some())
    }

    async fn owned(&self) -> Result<Owned, Error> {
        self.act("owned").await?;
        Ok(Owned {
            containers: self.containers.lock().unwrap().values().cloned().collect(),
            volumes: self.volumes.lock().unwrap().values().cloned().collect(),
        })
    }

    async fn exec(&self, _: &str, _: &ExecSpec) -> Result<Exec, Error> {
        self.act("exec").await?;
        let (input, requests) = tokio::io::duplex(64 * 1024);
        Ok(Exec {
            input: Box::pin(input),
            output: stream::unfold(FakeAgent::new(requests), FakeAgent::step).boxed(),
        })
    }
}

/// An agent that is ready, and can do nothing else. It ends with its input.
struct FakeAgent {
    requests: DuplexStream,
    decoder: Decoder<Request>,
}

impl FakeAgent {
    fn new(requests: DuplexStream) -> Self {
        Self {
            requests,
            decoder: Decoder::new(),
        }
    }

    async fn step(mut self) -> Option<(Result<ExecOutput, Error>, Self)> {
        let mut buffer = [0; 4096];
        let Request { id, call } = loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                break frame.header;
            }
            match self.requests.read(&mut buffer).await {
                Ok(count @ 1..) => self.decoder.push(&buffer[..count]),
                Ok(0) | Err(_) => return None,
            }
        };
        let result = match call {
            Call::Hello { protocol } => Ok(Reply::Hello(Hello {
                protocol,
                agent_version: String::new(),
                uid: 0,
                gid: 0,
                user: None,
                workspace_writable: true,
            })),
            Call::List { .. } | Call::Read { .. } | Call::Write { .. } | Call::Stat { .. } => {
                Err(CallError {
                    failure: Failure::Io,
                    message: "made up".to_owned(),
                })
            }
        };
        let answer = encode(&Response { id, result }, &[]).unwrap();
        Some((Ok(ExecOutput::Out(answer.into())), self))
    }
}

/// Returns an engine's refusal.
pub(crate) fn refused(operation: &str, message: &str) -> Error {
    Error::EngineRefused {
        operation: operation.to_owned(),
        status: 409,
        message: message.to_owned(),
    }
}
