//! Writes container images byte for byte, with no engine: the same content always gives the same digest.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The time that every file carries, 2025-01-01 00:00 UTC: a build's own time would make each build differ.
const TIME: u64 = 1_735_689_600;
const CREATED: &str = "2025-01-01T00:00:00Z";

/// The files of a layer, by path without a leading slash; missing parent folders are made on writing.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Folder,
    File(Vec<u8>),
    Link(String),
}

/// One layer: a tar archive.
#[derive(Debug, Clone)]
pub struct Layer {
    tar: Vec<u8>,
    digest: String,
    /// How hard gzip tries when a registry is to hold the layer, 0 (it stores) to 9.
    level: u32,
}

/// How a container of an image is started, and what is said about it.
#[derive(Debug, Clone, Default)]
pub struct ImageConfig {
    /// The architecture in the registry's words, `amd64`; empty for this machine's own.
    pub architecture: String,
    /// The user, empty for root.
    pub user: String,
    /// The working directory.
    pub working_dir: String,
    /// The environment as `NAME=value`.
    pub env: Vec<String>,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The command.
    pub cmd: Vec<String>,
    /// The paths that it declares as volumes.
    pub volumes: Vec<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// What the history says about each layer.
    pub history: String,
}

/// An image of one architecture.
#[derive(Debug, Clone)]
pub struct Image {
    config: Vec<u8>,
    config_digest: String,
    architecture: String,
    layers: Vec<Layer>,
}

impl Tree {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str, mode: u32, owner: u64) -> &mut Self {
        self.add(path, Kind::Folder, mode, owner)
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, owner: u64, content: Vec<u8>) -> &mut Self {
        self.add(path, Kind::File(content), mode, owner)
    }

    /// Adds a symbolic link; one that is already there stays.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        if !self.entries.contains_key(path) {
            self.add(path, Kind::Link(target.to_owned()), 0o777, 0);
        }
        self
    }

    /// Returns whether there is something at a path.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    fn add(&mut self, path: &str, kind: Kind, mode: u32, owner: u64) -> &mut Self {
        self.entries
            .insert(path.to_owned(), Entry { kind, mode, owner });
        self
    }

    /// Writes the files as a layer, sorted by path.
    ///
    /// # Errors
    /// When a path does not fit a tar archive.
    pub fn into_layer(mut self) -> Result<Layer> {
        let parents: Vec<String> = self
            .entries
            .keys()
            .flat_map(|path| parents_of(path))
            .collect();
        for parent in parents {
            self.entries.entry(parent).or_insert(Entry {
                kind: Kind::Folder,
                mode: 0o755,
                owner: 0,
            });
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut archive, path, entry)
                .with_context(|| format!("failed to write `{path}` to the layer"))?;
        }
        let tar = archive.into_inner().context("failed to end the layer")?;
        let digest = digest(&tar);
        Ok(Layer {
            tar,
            digest,
            level: 0,
        })
    }
}

fn parents_of(path: &str) -> Vec<String> {
    path.match_indices('/')
        .filter_map(|(at, _)| path.get(..at))
        .map(str::to_owned)
        .collect()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner);
    header.set_gid(entry.owner);
    header.set_mtime(TIME);
    match &entry.kind {
        Kind::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Kind::File(content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content.as_slice())?;
        }
        Kind::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

impl Layer {
    /// Returns the layer with this gzip level, 0 to 9, for when a registry is to hold it.
    ///
    /// Without it a layer is stored, not squeezed: most test images are random bytes, and a pull of them should take
    /// its time.
    #[must_use]
    pub fn squeezed(self, level: u32) -> Self {
        Self {
            level: level.min(9),
            ..self
        }
    }

    /// Returns the layer packed as a registry holds it.
    pub(crate) fn packed(&self) -> Result<Vec<u8>> {
        let mut writer = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::new(self.level));
        writer
            .write_all(&self.tar)
            .context("failed to pack a layer")?;
        writer.finish().context("failed to pack a layer")
    }
}

impl Image {
    /// Puts layers and configuration together.
    ///
    /// # Errors
    /// When the configuration cannot be written as JSON.
    pub fn new(config: &ImageConfig, layers: Vec<Layer>) -> Result<Self> {
        let architecture = if config.architecture.is_empty() {
            host_architecture().to_owned()
        } else {
            config.architecture.clone()
        };
        let history: Vec<Value> = layers
            .iter()
            .map(|_| json!({"created": CREATED, "created_by": config.history}))
            .collect();
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let volumes = (!config.volumes.is_empty()).then(|| {
            let paths = config.volumes.iter();
            paths
                .map(|path| (path, json!({})))
                .collect::<BTreeMap<_, _>>()
        });
        let document = json!({
            "architecture": architecture,
            "os": "linux",
            "created": CREATED,
            "config": {
                "User": config.user,
                "WorkingDir": config.working_dir,
                "Env": config.env,
                "Entrypoint": or_null(&config.entrypoint),
                "Cmd": or_null(&config.cmd),
                "Labels": config.labels,
                "Volumes": volumes,
            },
            "history": history,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = serde_json::to_vec(&document).context("failed to write the configuration")?;
        let config_digest = digest(&config);
        Ok(Self {
            config,
            config_digest,
            architecture,
            layers,
        })
    }

    /// Returns the image's id, `sha256:…`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.config_digest
    }

    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    pub(crate) fn config(&self) -> &[u8] {
        &self.config
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Writes the archive that `docker load` reads, under these names.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_archive(&self, names: &[&str], writer: impl Write) -> Result<()> {
        let hex = hex(&self.config_digest);
        let config_name = format!("{hex}.json");
        let layer_names: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("{}.tar", hex_of(layer)))
            .collect();
        let manifest = json!([
            {"Config": config_name, "RepoTags": names, "Layers": layer_names}
        ]);
        let manifest = serde_json::to_vec(&manifest).context("failed to write the manifest")?;

        let mut archive = tar::Builder::new(writer);
        let mut add = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(TIME);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content)
        };
        add(&config_name, &self.config).context("failed to write the image archive")?;
        let mut written: Vec<&String> = Vec::new();
        for (name, layer) in layer_names.iter().zip(&self.layers) {
            if !written.contains(&name) {
                add(name, &layer.tar).context("failed to write the image archive")?;
                written.push(name);
            }
        }
        add("manifest.json", &manifest).context("failed to write the image archive")?;
        archive.finish().context("failed to end the image archive")
    }

    /// Writes the same archive, compressed.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_compressed_archive(&self, names: &[&str], writer: impl Write) -> Result<()> {
        let mut packer = GzBuilder::new().mtime(0).write(writer, Compression::best());
        self.write_archive(names, &mut packer)?;
        packer
            .finish()
            .context("failed to compress the image archive")?;
        Ok(())
    }
}

/// Returns the architecture of this machine in the registry's words.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns the digest of some bytes, `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Returns a digest without its algorithm.
pub(crate) fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn hex_of(layer: &Layer) -> &str {
    hex(&layer.digest)
}

fn or_null(words: &[String]) -> Value {
    if words.is_empty() {
        Value::Null
    } else {
        json!(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Image {
        let mut tree = Tree::default();
        tree.file("etc/motd", 0o644, 0, b"hello".to_vec());
        tree.folder("tmp", 0o1777, 0);
        tree.link("bin/sh", "busybox");
        Image::new(&ImageConfig::default(), vec![tree.into_layer().unwrap()]).unwrap()
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let write = |image: &Image| {
            let mut bytes = Vec::new();
            image
                .write_compressed_archive(&["cove.invalid/example:1"], &mut bytes)
                .unwrap();
            bytes
        };
        let (one, two) = (example(), example());
        assert_eq!(one.id(), two.id());
        assert_eq!(write(&one), write(&two));
    }

    #[test]
    fn a_squeezed_layer_is_smaller_in_the_registry_and_the_same_on_the_engine() {
        let layer = || {
            let mut tree = Tree::default();
            tree.file("log", 0o644, 0, b"the same line\n".repeat(10_000));
            tree.into_layer().unwrap()
        };
        let (stored, squeezed) = (layer(), layer().squeezed(6));
        assert_eq!(stored.digest, squeezed.digest);
        assert!(stored.packed().unwrap().len() > 140_000);
        assert!(squeezed.packed().unwrap().len() < 14_000);
    }

    #[test]
    fn a_layer_lists_its_folders_before_what_they_hold() {
        let image = example();
        let mut archive = tar::Archive::new(image.layers()[0].tar.as_slice());
        let entries: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                format!(
                    "{:o} {} {}",
                    header.mode().unwrap(),
                    header.mtime().unwrap(),
                    entry.path().unwrap().display()
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                "755 1735689600 bin/",
                "777 1735689600 bin/sh",
                "755 1735689600 etc/",
                "644 1735689600 etc/motd",
                "1777 1735689600 tmp/",
            ]
        );
    }
}
