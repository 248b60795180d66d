//! Where to look for changes of a path.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::Workspace;
use crate::path::WorkspacePath;
use crate::resolve::LastLink;

/// A folder whose changes are those of a path.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) folder: OwnedFd,
    /// The one name in it that counts; all do where the path is the folder's own.
    pub(crate) name: Option<Vec<u8>>,
}

impl Workspace {
    /// Returns where changes of a path are seen: in itself if it leads to a folder, in the folder that it is in otherwise,
    /// also if there is nothing at it. `None` when there is no such folder.
    pub(crate) fn source_of(&self, path: &WorkspacePath) -> Option<Source> {
        let itself = self.root.resolve(path, LastLink::Follow).ok();
        let folder = itself.and_then(|place| place.open(OFlags::PATH | OFlags::DIRECTORY).ok());
        if let Some(folder) = folder {
            return Some(Source { folder, name: None });
        }
        let place = self.root.resolve(path, LastLink::Keep).ok()?;
        Some(Source {
            folder: place.directory,
            name: Some(place.name),
        })
    }
}
