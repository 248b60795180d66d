//! The images that the tests pull and start, each with one property that once broke somebody's session.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::image::{Image, ImageConfig, Layer, Tree};
use crate::random::Random;

/// One of the test images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestImage {
    /// Nine layers, six of them with 40 MB of incompressible bytes in all: a pull that takes its time.
    Layers,
    /// One small layer with a shell that sleeps: pulled in a moment.
    Tiny,
    /// Its command exits at once.
    Exits,
    /// Its entrypoint does not exist.
    BadEntrypoint,
    /// Its entrypoint exists and fails.
    FailingEntrypoint,
    /// Runs as user 1234, whom no `/etc/passwd` knows.
    NonRoot,
    /// Runs as the user `app` (1500), named.
    NamedUser,
    /// One static binary that waits for ever: no shell, no folder, nothing else.
    StaticOnly,
    /// The registry has it for another architecture only.
    WrongArch,
    /// Declares two folders outside of `/workspace` as volumes.
    Volumes,
    /// Declares a folder below `/workspace` as a volume, with a file of its own in it, and runs as user 1234.
    InnerVolume,
    /// One small layer, under a name with a folder, for the registry that asks for a password.
    Private,
}

impl TestImage {
    /// All that an open registry holds.
    pub const ALL: [Self; 12] = [
        Self::Layers,
        Self::Tiny,
        Self::Exits,
        Self::BadEntrypoint,
        Self::FailingEntrypoint,
        Self::NonRoot,
        Self::NamedUser,
        Self::StaticOnly,
        Self::WrongArch,
        Self::Volumes,
        Self::InnerVolume,
        Self::Private,
    ];

    /// Returns the image's repository in a registry.
    #[must_use]
    pub fn repository(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Tiny => "tiny",
            Self::Exits => "exits",
            Self::BadEntrypoint => "bad-entrypoint",
            Self::FailingEntrypoint => "failing-entrypoint",
            Self::NonRoot => "non-root",
            Self::NamedUser => "named-user",
            Self::StaticOnly => "static-only",
            Self::WrongArch => "wrong-arch",
            Self::Volumes => "volumes",
            Self::InnerVolume => "inner-volume",
            Self::Private => "private/app",
        }
    }

    /// Builds the image.
    ///
    /// # Errors
    /// When this machine has no static busybox (Debian: `busybox-static`).
    pub fn build(self) -> Result<Image> {
        self.build_for("")
    }

    /// Builds the image and says that it is for an architecture, `386`, whatever it holds; empty for this machine's own.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_for(self, architecture: &str) -> Result<Image> {
        let mut config = ImageConfig {
            architecture: architecture.to_owned(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cmd: words(&["sleep", "1000000"]),
            history: format!("cove test image {}", self.repository()),
            ..ImageConfig::default()
        };
        let mut layers = Vec::new();
        match self {
            Self::Tiny | Self::Private => layers.push(shell()?),
            Self::Layers => {
                layers.push(shell()?);
                for (seed, megabytes) in [2, 4, 6, 8, 8, 12].into_iter().enumerate() {
                    layers.push(noise(seed, megabytes << 20)?);
                }
                layers.push(noise(100, 1)?);
                layers.push(noise(101, 1000)?);
            }
            Self::Exits => {
                layers.push(shell()?);
                config.cmd = words(&["true"]);
            }
            Self::BadEntrypoint => {
                layers.push(shell()?);
                config.entrypoint = words(&["/does/not/exist"]);
            }
            Self::FailingEntrypoint => {
                layers.push(shell()?);
                config.entrypoint = words(&["/bin/sh", "-c", "echo refused >&2; exit 3"]);
            }
            Self::NonRoot => {
                layers.push(shell()?);
                config.user = "1234".into();
            }
            Self::NamedUser => {
                layers.push(shell()?);
                let mut tree = Tree::default();
                let passwd =
                    "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1500:App:/home/app:/bin/sh\n";
                tree.file("etc/passwd", 0o644, 0, passwd.into());
                tree.file("etc/group", 0o644, 0, "root:x:0:\napp:x:1500:\n".into());
                tree.folder("home/app", 0o755, 1500);
                layers.push(tree.into_layer()?);
                config.user = "app".into();
            }
            Self::StaticOnly => {
                let mut tree = Tree::default();
                tree.file("wait", 0o755, 0, waiting_binary()?);
                layers.push(tree.into_layer()?);
                config.env = Vec::new();
                config.cmd = words(&["/wait"]);
            }
            Self::Volumes => {
                layers.push(shell()?);
                config.volumes = words(&["/data/one", "/data/two"]);
            }
            Self::InnerVolume => {
                layers.push(shell()?);
                let mut tree = Tree::default();
                tree.folder("workspace/node_modules", 0o755, 0);
                let content = "of the image".into();
                tree.file("workspace/node_modules/own", 0o644, 0, content);
                layers.push(tree.into_layer()?);
                config.volumes = words(&["/workspace/node_modules"]);
                config.user = "1234".into();
            }
            Self::WrongArch => {
                layers.push(noise(102, 4000)?);
                config.architecture = "s390x".into();
            }
        }
        Image::new(&config, layers)
    }

    /// Returns whether a registry offers the image in a list by architecture.
    pub(crate) fn is_listed_by_architecture(self) -> bool {
        self == Self::WrongArch
    }
}

/// A static busybox and the commands that it holds.
#[derive(Debug, Clone)]
pub struct Busybox {
    /// The program.
    pub binary: Vec<u8>,
    /// Where its commands belong, `usr/bin/awk`.
    pub commands: Vec<String>,
}

impl Busybox {
    /// Takes the static busybox that is installed here.
    ///
    /// # Errors
    /// When there is none, or it is not static.
    pub fn installed() -> Result<Self> {
        let path = ["/bin/busybox", "/usr/bin/busybox"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.is_file())
            .context("no busybox found: install `busybox-static`")?;
        let binary = fs::read(path).context("failed to read busybox")?;
        if is_dynamic(&binary) {
            bail!(
                "`{}` is not static: install `busybox-static`",
                path.display()
            );
        }
        Ok(Self {
            binary,
            commands: Self::commands_of(path)?,
        })
    }

    /// Asks a busybox for its commands.
    ///
    /// # Errors
    /// When it cannot run here.
    pub fn commands_of(path: &Path) -> Result<Vec<String>> {
        let output = Command::new(path)
            .arg("--list-full")
            .output()
            .context("failed to run busybox")?;
        let mut commands: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        commands.sort();
        if commands.len() < 50 {
            bail!("`{}` does not list its commands", path.display());
        }
        Ok(commands)
    }

    /// Adds the program at `bin/busybox` and a link for each command.
    pub fn add_to(&self, tree: &mut Tree) {
        tree.file("bin/busybox", 0o755, 0, self.binary.clone());
        // `linuxrc` is for a machine that boots.
        for command in self.commands.iter().filter(|name| *name != "linuxrc") {
            tree.link(command, "/bin/busybox");
        }
    }
}

/// A dynamic program names its loader, a static one (position-independent or not) has none.
fn is_dynamic(binary: &[u8]) -> bool {
    binary
        .windows(8)
        .take(0x1000)
        .any(|window| window == b"/ld-linu" || window == b"/ld-musl")
}

fn shell() -> Result<Layer> {
    let mut tree = Tree::default();
    Busybox::installed()?.add_to(&mut tree);
    tree.folder("tmp", 0o1777, 0);
    tree.into_layer()
}

/// Returns a layer of one file with bytes that do not compress, the same for the same seed.
fn noise(seed: usize, size: usize) -> Result<Layer> {
    let bytes = Random::after(0x9E37_79B9_7F4A_7C15 ^ ((seed as u64 + 1) << 32)).bytes(size);
    let mut tree = Tree::default();
    tree.file(&format!("opt/noise/{seed}"), 0o644, 0, bytes);
    tree.into_layer()
}

/// Returns a whole program for this machine that only waits: an ELF header, one segment, a few instructions.
fn waiting_binary() -> Result<Vec<u8>> {
    // x86_64: `mov eax, 34 (pause); syscall; jmp -9`. aarch64: `ppoll(NULL, 0, NULL, NULL, 0)` in a loop.
    let (machine, code): (u16, Vec<u8>) = match std::env::consts::ARCH {
        "x86_64" => (62, vec![0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        "aarch64" => {
            let words: [u32; 7] = [
                0xd280_0000, // mov x0, 0
                0xd280_0001, // mov x1, 0
                0xd280_0002, // mov x2, 0
                0xd280_0003, // mov x3, 0
                0xd280_0928, // mov x8, 73
                0xd400_0001, // svc 0
                0x17ff_fffa, // b -6
            ];
            (
                183,
                words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            )
        }
        other => bail!("no waiting program for `{other}`"),
    };
    let base: u64 = 0x40_0000;
    let headers: u64 = 64 + 56;
    let size = headers + code.len() as u64;
    let mut binary = Vec::new();
    binary.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    binary.extend_from_slice(&2_u16.to_le_bytes()); // an executable
    binary.extend_from_slice(&machine.to_le_bytes());
    binary.extend_from_slice(&1_u32.to_le_bytes());
    binary.extend_from_slice(&(base + headers).to_le_bytes()); // entry
    binary.extend_from_slice(&64_u64.to_le_bytes()); // program headers
    binary.extend_from_slice(&0_u64.to_le_bytes()); // no sections
    binary.extend_from_slice(&0_u32.to_le_bytes());
    for field in [64_u16, 56, 1, 64, 0, 0] {
        binary.extend_from_slice(&field.to_le_bytes());
    }
    binary.extend_from_slice(&1_u32.to_le_bytes()); // to be loaded
    binary.extend_from_slice(&5_u32.to_le_bytes()); // readable, executable
    for field in [0, base, base, size, size, 0x1000] {
        binary.extend_from_slice(&field.to_le_bytes());
    }
    binary.extend_from_slice(&code);
    Ok(binary)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_test_image_is_the_same_each_time() {
        let image = TestImage::StaticOnly;
        assert_eq!(image.build().unwrap().id(), image.build().unwrap().id());
    }

    #[test]
    fn the_big_image_has_many_layers_and_some_tens_of_megabytes() {
        let image = TestImage::Layers.build().unwrap();
        let sizes: Vec<usize> = image
            .layers()
            .iter()
            .map(|layer| layer.packed().unwrap().len() >> 20)
            .collect();
        assert_eq!(sizes.len(), 9);
        let total: usize = sizes.iter().sum();
        assert!((40..50).contains(&total), "{sizes:?}");
    }
}
