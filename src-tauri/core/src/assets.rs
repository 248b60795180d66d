//! What is built into the app for the containers: the agent and the built-in image, one of each per
//! processor. Where they come from is the shell's business.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cove_agent::AGENT_PATH;
use flate2::read::GzDecoder;

use crate::engine::ImageFacts;
use crate::error::Error;
use parking_lot::Mutex;
use serde_json::Value;

/// A built-in file for one processor.
#[derive(Debug, Clone)]
pub struct Asset {
    /// The processor, as the kernel calls it.
    pub architecture: Cow<'static, str>,
    /// The content.
    pub content: Bytes,
}

/// All built-in files.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    /// Static binaries of the agent.
    pub agents: Vec<Asset>,
    /// Archives of the built-in image, as `docker save` makes them, compressed by gzip.
    pub base_images: Vec<Asset>,
    /// The agent as containers get it, by processor: packed once for all runs.
    packed_agents: Arc<Mutex<HashMap<String, Bytes>>>,
    /// What the built-in images hold, by processor: read once for all runs.
    base_contents: Arc<Mutex<HashMap<String, BaseContent>>>,
}

/// What a built-in image holds, by which it is known whatever an engine calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BaseContent {
    layers: Vec<String>,
    user: String,
}

impl Assets {
    /// Returns these files.
    #[must_use]
    pub fn new(agents: Vec<Asset>, base_images: Vec<Asset>) -> Self {
        Self {
            agents,
            base_images,
            packed_agents: Arc::default(),
            base_contents: Arc::default(),
        }
    }

    /// Sorts files by their names: `cove-agent-<processor>` and `base-<processor>.tar.gz`. Others
    /// are left out.
    #[must_use]
    pub fn from_files(files: impl IntoIterator<Item = (Cow<'static, str>, Bytes)>) -> Self {
        let mut assets = Self::default();
        for (name, content) in files {
            let asset = |architecture: &str| Asset {
                architecture: Cow::Owned(architecture.to_owned()),
                content: content.clone(),
            };
            if let Some(architecture) = name.strip_prefix("cove-agent-") {
                assets.agents.push(asset(architecture));
            } else if let Some(architecture) = name
                .strip_prefix("base-")
                .and_then(|rest| rest.strip_suffix(".tar.gz"))
            {
                assets.base_images.push(asset(architecture));
            }
        }
        assets
    }

    /// Reads the files of a folder, as [`Self::from_files`] takes them.
    ///
    /// # Errors
    /// When the folder or a file of it cannot be read.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push((Cow::Owned(name), fs::read(entry.path())?.into()));
        }
        Ok(Self::from_files(files))
    }

    /// Returns the agent for a processor.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none.
    pub fn agent(&self, architecture: &str) -> Result<Bytes, Error> {
        find(&self.agents, architecture, "agent")
    }

    /// Returns the agent for a processor as the tar archive that is unpacked at a container's root.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none.
    pub(crate) fn agent_archive(&self, architecture: &str) -> Result<Bytes, Error> {
        let mut packed = self.packed_agents.lock();
        if let Some(archive) = packed.get(architecture) {
            return Ok(archive.clone());
        }
        let archive = pack_agent(&self.agent(architecture)?)
            .map_err(|error| Error::Internal(format!("failed to pack the agent: {error}")))?;
        packed.insert(architecture.to_owned(), archive.clone());
        Ok(archive)
    }

    /// Returns the archive of the built-in image for a processor, unpacked: Podman does not take a
    /// compressed one.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none.
    pub async fn base_image(&self, architecture: &str) -> Result<Bytes, Error> {
        self.unpacked_base_image(architecture).await
    }

    /// Returns whether an image on an engine is the built-in one: an engine gives a name to whatever it is
    /// told to.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none for the processor.
    pub(crate) async fn is_base_image(
        &self,
        architecture: &str,
        image: &ImageFacts,
    ) -> Result<bool, Error> {
        let known = self.base_contents.lock().get(architecture).cloned();
        let content = if let Some(content) = known {
            content
        } else {
            let archive = self.unpacked_base_image(architecture).await?;
            let content = content_of(&archive)
                .ok_or_else(|| damaged(&io::Error::other("it does not say what it holds")))?;
            let mut contents = self.base_contents.lock();
            contents.insert(architecture.to_owned(), content.clone());
            content
        };
        Ok(content.layers == image.layers && content.user == image.user)
    }

    async fn unpacked_base_image(&self, architecture: &str) -> Result<Bytes, Error> {
        let packed = find(&self.base_images, architecture, "built-in image")?;
        let unpack = tokio::task::spawn_blocking(move || {
            let mut archive = Vec::new();
            GzDecoder::new(&*packed).read_to_end(&mut archive)?;
            Ok::<_, std::io::Error>(archive)
        });
        match unpack.await {
            Ok(Ok(archive)) => Ok(Bytes::from(archive)),
            Ok(Err(error)) => Err(damaged(&error)),
            Err(error) => Err(damaged(&error)),
        }
    }
}

/// Reads what the archive of an image says of it.
fn content_of(archive: &[u8]) -> Option<BaseContent> {
    let manifest = json_in(archive, "manifest.json")?;
    let config = json_in(archive, manifest.pointer("/0/Config")?.as_str()?)?;
    let layers = config.pointer("/rootfs/diff_ids")?.as_array()?.iter();
    let layers = layers.map(|layer| layer.as_str().map(str::to_owned));
    Some(BaseContent {
        layers: layers.collect::<Option<_>>()?,
        user: config.pointer("/config/User")?.as_str()?.to_owned(),
    })
}

fn json_in(archive: &[u8], name: &str) -> Option<Value> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().ok()?;
    let found = entries.find_map(|entry| {
        let entry = entry.ok()?;
        let is_it = entry.path().is_ok_and(|path| path.to_str() == Some(name));
        is_it.then_some(entry)
    })?;
    serde_json::from_reader(found).ok()
}

fn pack_agent(agent: &[u8]) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::with_capacity(agent.len() + 4096));
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    add(".cove/", tar::EntryType::Directory, 0o755, &[])?;
    let path = AGENT_PATH.trim_start_matches('/');
    // To run and not to read: the kernel then closes the agent's processes to the others of their user from
    // their first moment on.
    add(path, tar::EntryType::Regular, 0o711, agent)?;
    archive.into_inner().map(Bytes::from)
}

fn damaged(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!(
        "the built-in image of this build is damaged: {error}"
    ))
}

fn find(assets: &[Asset], architecture: &str, what: &str) -> Result<Bytes, Error> {
    let found = assets
        .iter()
        .find(|asset| asset.architecture == architecture);
    found.map(|asset| asset.content.clone()).ok_or_else(|| {
        Error::Internal(format!(
            "this build of Cove has no {what} for the processor `{architecture}`"
        ))
    })
}
