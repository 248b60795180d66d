//! What is built into the app for the containers: the agent and the built-in image, one of each per
//! processor. Where they come from is the shell's business.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::Error;

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
    /// Archives of the built-in image, as `docker load` takes them.
    pub base_images: Vec<Asset>,
}

impl Assets {
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

    /// Returns the agent for a processor.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none.
    pub fn agent(&self, architecture: &str) -> Result<Bytes, Error> {
        find(&self.agents, architecture, "agent")
    }

    /// Returns the archive of the built-in image for a processor.
    ///
    /// # Errors
    /// [`Error::Internal`] when this build has none.
    pub fn base_image(&self, architecture: &str) -> Result<Bytes, Error> {
        find(&self.base_images, architecture, "built-in image")
    }
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
