//! A session on an engine, and terminals in it.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use cove_core::assets::Assets;
use cove_core::engine::docker::DockerPlaces;
use cove_core::event::{FilesChanged, Reporter, SessionEvent};
use cove_core::session::SessionId;
use cove_core::sessions::{Sessions, Start};
use cove_core::terminal::{Output, Size, Terminal};
use cove_testbed::Engine;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(60);

struct Heard {
    events: UnboundedSender<SessionEvent>,
    files: UnboundedSender<FilesChanged>,
}

impl Reporter for Heard {
    fn report(&self, event: &SessionEvent) {
        // At the end nobody listens.
        let _ = self.events.send(event.clone());
    }

    fn files_changed(&self, changed: &FilesChanged) {
        let _ = self.files.send(changed.clone());
    }
}

/// The session that all is measured in.
pub(crate) struct Bench {
    pub(crate) sessions: Sessions,
    pub(crate) id: SessionId,
    pub(crate) engine: Engine,
    pub(crate) events: tokio::sync::Mutex<UnboundedReceiver<SessionEvent>>,
    pub(crate) files: tokio::sync::Mutex<UnboundedReceiver<FilesChanged>>,
    /// Where its files are on this machine.
    pub(crate) folder: PathBuf,
}

impl Bench {
    pub(crate) async fn start() -> Result<Self> {
        let Some(engine) = Engine::from_env() else {
            bail!("run `cargo xtask bench workspace`, which starts an engine");
        };
        let assets = Assets::from_folder(Path::new(&env::var("COVE_ASSETS")?))?;
        let (events, mut heard) = unbounded_channel();
        let (files, changed) = unbounded_channel();
        let sessions = Sessions::new(Start::fresh(
            Box::new(DockerPlaces::at(&[engine.host()])),
            assets,
            Box::new(Heard { events, files }),
        ));
        let id = sessions.create(&json!({ "workspace_id": "bench" }))?;
        loop {
            match heard.recv().await.context("no event")? {
                SessionEvent::Ready(_) => break,
                SessionEvent::Failed(event) => bail!("{}", event.error.message),
                _ => {}
            }
        }
        let volume = format!("cove-{id}");
        let place = ["volume", "inspect", "--format", "{{.Mountpoint}}", &volume];
        let folder = PathBuf::from(engine.docker(&place)?.trim());
        Ok(Self {
            sessions,
            id,
            engine,
            events: tokio::sync::Mutex::new(heard),
            files: tokio::sync::Mutex::new(changed),
            folder,
        })
    }

    pub(crate) fn container(&self) -> String {
        format!("cove-{}", self.id)
    }

    /// Runs a shell command in the container as root.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        let container = self.container();
        self.engine
            .docker(&["exec", "--user", "0", &container, "sh", "-c", script])
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.sessions.delete(self.id).await?;
        self.sessions.shutdown().await;
        Ok(())
    }
}

/// A terminal whose output is acknowledged as it is heard.
pub(crate) struct Shell {
    terminal: Arc<Terminal>,
    output: UnboundedReceiver<Vec<u8>>,
    heard: u64,
    /// What was heard behind what was waited for.
    unread: Vec<u8>,
}

impl Shell {
    /// Opens a terminal and waits for its prompt, which is [`Self::PROMPT`].
    pub(crate) async fn open(bench: &Bench) -> Result<Self> {
        let (sender, output) = unbounded_channel();
        let sink = Box::new(move |output| {
            if let Output::Bytes(bytes) = output {
                // At the end nobody listens.
                let _ = sender.send(bytes);
            }
        });
        let size = Size { cols: 80, rows: 24 };
        let id = bench
            .sessions
            .ready(bench.id)
            .await?
            .open_terminal(size, sink)
            .await?;
        let mut shell = Self {
            terminal: bench.sessions.connected(bench.id).await?.terminal(&id)?,
            output,
            heard: 0,
            unread: Vec::new(),
        };
        // In two parts, so that the echo is not taken for it.
        shell.type_in("PS1='RE''ADY>' PROMPT_COMMAND=\n").await?;
        shell.until(Self::PROMPT).await?;
        Ok(shell)
    }

    pub(crate) const PROMPT: &str = "READY>";

    pub(crate) async fn type_in(&self, text: &str) -> Result<()> {
        self.terminal.write(text.as_bytes()).await?;
        Ok(())
    }

    /// Hears the next output.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>> {
        let bytes = timeout(LIMIT, self.output.recv()).await;
        let bytes = bytes.map_err(|_| anyhow!("nothing was heard"))?;
        let bytes = bytes.context("the terminal has ended")?;
        self.heard += bytes.len() as u64;
        self.terminal.acknowledge(self.heard);
        Ok(bytes)
    }

    /// Hears output until this is in it; what comes behind it is for the next time.
    pub(crate) async fn until(&mut self, text: &str) -> Result<()> {
        loop {
            let mut windows = self.unread.windows(text.len());
            if let Some(at) = windows.position(|window| window == text.as_bytes()) {
                self.unread.drain(..at + text.len());
                return Ok(());
            }
            let excess = self.unread.len().saturating_sub(text.len());
            self.unread.drain(..excess);
            let bytes = self.next().await?;
            self.unread.extend(bytes);
        }
    }

    /// Hears all output for so long.
    pub(crate) async fn hear_for(&mut self, time: Duration) -> Result<()> {
        let hearing = async {
            loop {
                self.next().await?;
            }
        };
        match timeout(time, hearing).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Ok(()),
        }
    }

    /// Hears output for as long as the session is there.
    pub(crate) fn hear_on(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { while self.next().await.is_ok() {} })
    }
}
