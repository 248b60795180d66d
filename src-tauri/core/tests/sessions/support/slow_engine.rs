//! A socket between Cove and an engine that holds up the requests, or the answers, that a test names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// What is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// The engine does not hear of it before the delay is over.
    Request,
    /// The engine has done it, and says so only after the delay.
    Answer,
}

/// A line to an engine. Dropping it ends all connections, and nobody answers any more.
pub(crate) struct SlowEngine {
    folder: tempfile::TempDir,
    line: tokio::task::JoinHandle<()>,
}

impl SlowEngine {
    /// Holds up every request whose head contains the text, `POST /v1.41/containers/create`.
    pub(crate) fn start(engine: &Path, text: &'static str, held: Held, delay: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let engine = engine.to_owned();
        let line = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, engine.clone(), text, held, delay));
            }
        });
        Self { folder, line }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("s").display())
    }
}

impl Drop for SlowEngine {
    fn drop(&mut self) {
        self.line.abort();
    }
}

async fn serve(client: UnixStream, engine: PathBuf, text: &str, held: Held, delay: Duration) {
    let Ok(engine) = UnixStream::connect(engine).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let late = Arc::new(AtomicBool::new(false));
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            // A request's head comes in one piece: clients write it at once.
            if String::from_utf8_lossy(&buffer[..count]).contains(text) {
                match held {
                    Held::Request => tokio::time::sleep(delay).await,
                    Held::Answer => late.store(true, Ordering::SeqCst),
                }
            }
            if to_engine.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        // The other side may have closed first.
        let _ = to_engine.shutdown().await;
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_engine.read(&mut buffer).await {
            if late.swap(false, Ordering::SeqCst) {
                tokio::time::sleep(delay).await;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(requests, answers);
}
