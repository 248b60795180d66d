//! A real `docker-registry` on a loopback port. Images are laid straight into its storage, so no push is needed and
//! one can appear or vanish while it runs.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::image::{Image, digest, hex};
use crate::process::{self, Guarded};
use crate::scratch::Scratch;
use crate::test_image::TestImage;

const ADDRESS: &str = "COVE_TEST_REGISTRY";
const FOLDER: &str = "COVE_TEST_REGISTRY_FOLDER";
const PRIVATE_ADDRESS: &str = "COVE_TEST_PRIVATE_REGISTRY";
const PRIVATE_FOLDER: &str = "COVE_TEST_PRIVATE_REGISTRY_FOLDER";

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What a registry that asks for a password lets in.
#[derive(Debug, Clone, Copy)]
pub struct Credentials {
    /// The user's name.
    pub username: &'static str,
    /// The password.
    pub password: &'static str,
}

/// The user of the registry that asks for a password, and the password's bcrypt hash: a fixed pair, for tests only.
const USER: Credentials = Credentials {
    username: "sailor",
    password: "harbour-4711",
};
const HASH: &str = "$2b$05$CoveTestbedSaltValuex.FOpVdPXriOcjiOuLzd4Y.7mBoBQ17QW";

/// How a registry is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Whether it asks for a name and a password.
    pub password: bool,
}

/// A request that the registry answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`.
    pub method: String,
    /// `/v2/layers/manifests/latest`.
    pub path: String,
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    address: String,
    folder: PathBuf,
    options: RegistryOptions,
    process: Mutex<Option<Guarded>>,
    /// Absent when another process started the registry.
    _scratch: Option<Scratch>,
}

impl Registry {
    /// Starts an empty registry of one's own.
    ///
    /// # Errors
    /// When `docker-registry` is missing or does not start.
    pub fn start(options: RegistryOptions) -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = free_port()?;
        let registry = Self {
            address: format!("127.0.0.1:{port}"),
            folder: scratch.path().to_owned(),
            options,
            process: Mutex::new(None),
            _scratch: Some(scratch),
        };
        registry.start_again()?;
        Ok(registry)
    }

    /// Starts a registry of one's own that holds every test image.
    ///
    /// # Errors
    /// When `docker-registry` is missing or an image cannot be built.
    pub fn start_with_images(options: RegistryOptions) -> Result<Self> {
        let registry = Self::start(options)?;
        for image in TestImage::ALL {
            registry.publish(image)?;
        }
        Ok(registry)
    }

    /// Returns the open registry that the test command started, with every test image in it.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        Self::shared(ADDRESS, FOLDER, RegistryOptions { password: false })
    }

    /// Returns the registry with a password that the test command started.
    #[must_use]
    pub fn private_from_env() -> Option<Self> {
        Self::shared(
            PRIVATE_ADDRESS,
            PRIVATE_FOLDER,
            RegistryOptions { password: true },
        )
    }

    fn shared(address: &str, folder: &str, options: RegistryOptions) -> Option<Self> {
        Some(Self {
            address: std::env::var(address).ok()?,
            folder: PathBuf::from(std::env::var_os(folder)?),
            options,
            process: Mutex::new(None),
            _scratch: None,
        })
    }

    /// Returns the environment by which another process finds this registry.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let (address, folder) = if self.options.password {
            (PRIVATE_ADDRESS, PRIVATE_FOLDER)
        } else {
            (ADDRESS, FOLDER)
        };
        vec![
            (address, self.address.clone()),
            (folder, self.folder.display().to_string()),
        ]
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns what a user types to get this image from here.
    #[must_use]
    pub fn reference(&self, image: TestImage) -> String {
        format!("{}/{}:latest", self.address, image.repository())
    }

    /// Returns who is let in, or `None` when everybody is.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.options.password.then_some(USER)
    }

    /// Stops the registry; the port then refuses connections.
    pub fn stop(&self) {
        *self.process() = None;
    }

    /// Starts the registry on the same port with the same content.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<()> {
        let config = self.folder.join("config.yml");
        fs::write(&config, self.config()).context("failed to write the registry's settings")?;
        let open = |name: &str| {
            let path = self.folder.join(name);
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("failed to open `{}`", path.display()))
        };
        let mut command = process::command("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(open("access.log")?)
            .stderr(open("error.log")?);
        let mut process = Guarded::spawn("docker-registry", command)?;
        process.wait_until(Duration::from_secs(15), || {
            TcpStream::connect(&self.address).is_ok()
        })?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Returns every request answered so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().filter_map(parse_access).collect()
    }

    /// Returns the requests about one image, so that tests can share the registry.
    #[must_use]
    pub fn requests_for(&self, image: TestImage) -> Vec<Request> {
        let prefix = format!("/v2/{}/", image.repository());
        self.requests()
            .into_iter()
            .filter(|request| request.path.starts_with(&prefix))
            .collect()
    }

    /// Puts a test image in, as `latest`.
    ///
    /// # Errors
    /// When the image cannot be built or written.
    pub fn publish(&self, image: TestImage) -> Result<()> {
        self.publish_named(image, image.repository(), "latest")
    }

    /// Puts a test image in under another name.
    ///
    /// # Errors
    /// When the image cannot be built or written.
    pub fn publish_named(&self, image: TestImage, repository: &str, tag: &str) -> Result<()> {
        self.publish_as(
            &image.build()?,
            repository,
            tag,
            image.is_listed_by_architecture(),
        )
        .map(drop)
    }

    /// Puts an image of one's own in, and returns how many bytes a pull of all its layers carries.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn publish_image(&self, image: &Image, repository: &str, tag: &str) -> Result<u64> {
        self.publish_as(image, repository, tag, false)
    }

    fn publish_as(&self, image: &Image, repository: &str, tag: &str, listed: bool) -> Result<u64> {
        let config = self.write_blob(image.config())?;
        self.link(
            repository,
            &format!("_layers/sha256/{}", hex(&config)),
            &config,
        )?;
        let mut layers = Vec::new();
        let mut size = 0;
        for layer in image.layers() {
            let packed = layer.packed()?;
            size += packed.len() as u64;
            let blob = self.write_blob(&packed)?;
            self.link(repository, &format!("_layers/sha256/{}", hex(&blob)), &blob)?;
            layers.push(json!({"mediaType": LAYER, "size": packed.len(), "digest": blob}));
        }
        let mut top = self.write_manifest(
            repository,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "size": image.config().len(), "digest": config},
                "layers": layers,
            }),
        )?;
        if listed {
            let (digest, length) = top;
            let platform = json!({"architecture": image.architecture(), "os": "linux"});
            top = self.write_manifest(
                repository,
                &json!({
                    "schemaVersion": 2,
                    "mediaType": MANIFEST_LIST,
                    "manifests": [
                        {"mediaType": MANIFEST, "size": length, "digest": digest, "platform": platform},
                    ],
                }),
            )?;
        }
        let (digest, _) = top;
        self.link(
            repository,
            &format!("_manifests/tags/{tag}/index/sha256/{}", hex(&digest)),
            &digest,
        )?;
        self.link(
            repository,
            &format!("_manifests/tags/{tag}/current"),
            &digest,
        )?;
        Ok(size)
    }

    /// Takes an image out again: pulling it then finds nothing.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn withdraw(&self, repository: &str) -> Result<()> {
        match fs::remove_dir_all(self.storage().join("repositories").join(repository)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to withdraw `{repository}`"))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write_manifest(&self, repository: &str, manifest: &Value) -> Result<(String, usize)> {
        let bytes = serde_json::to_vec(manifest).context("failed to write a manifest")?;
        let digest = self.write_blob(&bytes)?;
        self.link(
            repository,
            &format!("_manifests/revisions/sha256/{}", hex(&digest)),
            &digest,
        )?;
        Ok((digest, bytes.len()))
    }

    fn write_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = digest(bytes);
        let hex = hex(&digest);
        let folder = self
            .storage()
            .join("blobs/sha256")
            .join(hex.get(..2).unwrap_or(hex))
            .join(hex);
        write_whole(&folder, "data", bytes)?;
        Ok(digest)
    }

    fn link(&self, repository: &str, place: &str, digest: &str) -> Result<()> {
        let folder = self
            .storage()
            .join("repositories")
            .join(repository)
            .join(place);
        write_whole(&folder, "link", digest.as_bytes())
    }

    fn storage(&self) -> PathBuf {
        self.folder.join("storage/docker/registry/v2")
    }

    fn config(&self) -> String {
        let quoted = |path: &Path| json!(path.display().to_string()).to_string();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {}\n",
            quoted(&self.folder.join("storage")),
            self.address,
        );
        if self.options.password {
            let path = self.folder.join("htpasswd");
            // A missing file shows at once: the registry then makes one with a password of its own.
            let _ = fs::write(&path, format!("{}:{HASH}\n", USER.username));
            // Writing to a String cannot fail.
            let _ = write!(
                config,
                "auth:\n  htpasswd:\n    realm: cove\n    path: {}\n",
                quoted(&path)
            );
        }
        config
    }

    fn process(&self) -> MutexGuard<'_, Option<Guarded>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file so that a registry or another test never sees half of it; one of the same size stays.
fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let failed = || format!("failed to write `{}`", path.display());
    if name == "data" && fs::metadata(&path).is_ok_and(|file| file.len() == bytes.len() as u64) {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    std::io::Write::write_all(&mut file, bytes).with_context(failed)?;
    file.persist(&path).with_context(failed)?;
    Ok(())
}

pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    Ok(listener
        .local_addr()
        .context("failed to find a free port")?
        .port())
}

/// Reads a line of the access log: `127.0.0.1 - - [date] "GET /v2/ HTTP/1.1" 200 2 "" "agent"`.
fn parse_access(line: &str) -> Option<Request> {
    let request = line.split('"').nth(1)?;
    let mut words = request.split(' ');
    let method = words.next()?.to_owned();
    let path = words.next()?.to_owned();
    words
        .next()?
        .starts_with("HTTP/")
        .then_some(Request { method, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_line_names_method_and_path() {
        let line = r#"127.0.0.1 - - [22/Nov/2026:16:31:00 +0000] "GET /v2/layers/manifests/latest HTTP/1.1" 200 5 "" "docker/20.10""#;
        assert_eq!(
            parse_access(line),
            Some(Request {
                method: "GET".into(),
                path: "/v2/layers/manifests/latest".into()
            })
        );
        assert_eq!(parse_access("time=\"x\" level=warning msg=\"y\""), None);
    }
}
