//! The built-in image: our own `rootfs/` and Debian's static busybox, written without an engine. The same inputs give
//! the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cove_testbed::{Busybox, Image, ImageConfig, Tree};

use crate::workspace::{Workspace, output_of, run};

/// The unprivileged user, as `rootfs/etc/passwd` has it.
const DEV: u64 = 1000;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An architecture that sessions run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Returns the name in Rust's words, and in the names of our assets.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Returns the name in Debian's words, which are also the registries'.
    pub(crate) fn debian_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Returns whether this machine is of it.
    pub(crate) fn is_host(self) -> bool {
        self.name() == std::env::consts::ARCH
    }
}

/// Busybox as its package has it.
struct Package {
    busybox: Busybox,
    copyright: Vec<u8>,
    /// `busybox=1:1.35.0-4`, source packages with versions, one a line.
    sources: String,
}

/// Writes the archive that `docker load` reads.
pub(crate) fn archive(workspace: &Workspace, architecture: Architecture) -> Result<Vec<u8>> {
    let package = if architecture.is_host() && is_installed() {
        installed()?
    } else {
        downloaded(architecture)?
    };
    let image = image(
        &workspace.root().join("src-tauri/image"),
        architecture,
        &package,
    )?;
    let mut bytes = Vec::new();
    image.write_compressed_archive(&[&format!("cove.invalid/base:{VERSION}")], &mut bytes)?;
    Ok(bytes)
}

fn image(folder: &Path, architecture: Architecture, package: &Package) -> Result<Image> {
    let mut tree = Tree::default();
    for folder in [
        "dev",
        "etc",
        "home",
        "mnt",
        "opt",
        "proc",
        "run",
        "srv",
        "sys",
        "usr/local/bin",
        "var/log",
    ] {
        tree.folder(folder, 0o755, 0);
    }
    tree.folder("root", 0o700, 0);
    tree.folder("tmp", 0o1777, 0).folder("var/tmp", 0o1777, 0);
    tree.folder("home/dev", 0o755, DEV)
        .folder("workspace", 0o755, DEV);
    package.busybox.add_to(&mut tree);
    add_rootfs(&mut tree, &folder.join("rootfs"), "")?;

    let notices = "usr/share/doc/busybox";
    tree.file(
        &format!("{notices}/copyright"),
        0o644,
        0,
        package.copyright.clone(),
    );
    tree.file(
        &format!("{notices}/SOURCE"),
        0o644,
        0,
        source_note(&package.sources).into_bytes(),
    );
    let notice = folder.join("NOTICE.md");
    let notice =
        fs::read(&notice).with_context(|| format!("failed to read `{}`", notice.display()))?;
    tree.file("usr/share/doc/cove/NOTICE.md", 0o644, 0, notice);
    for licence in ["GPL-2", "LGPL-2.1"] {
        let path = format!("usr/share/common-licenses/{licence}");
        let text = fs::read(Path::new("/").join(&path)).with_context(|| {
            format!("failed to read the licence `/{path}` of Debian's `base-files`")
        })?;
        tree.file(&path, 0o644, 0, text);
    }

    let labels = [
        ("org.opencontainers.image.title", "Cove base"),
        (
            "org.opencontainers.image.description",
            "The built-in image of Cove: a small shell environment",
        ),
        ("org.opencontainers.image.version", VERSION),
        (
            "org.opencontainers.image.licenses",
            "Apache-2.0 AND GPL-2.0-only AND LGPL-2.1-or-later",
        ),
    ];
    let config = ImageConfig {
        architecture: architecture.debian_name().to_owned(),
        user: "dev".to_owned(),
        working_dir: "/workspace".to_owned(),
        env: vec![
            format!("PATH={PATH}"),
            "LANG=C.UTF-8".to_owned(),
            "ENV=/etc/shrc".to_owned(),
        ],
        entrypoint: Vec::new(),
        cmd: vec!["/bin/sh".to_owned(), "-l".to_owned()],
        volumes: Vec::new(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        history: format!("cove base {VERSION}"),
    };
    Image::new(&config, vec![tree.into_layer()?])
}

fn add_rootfs(tree: &mut Tree, from: &Path, to: &str) -> Result<()> {
    let failed = || format!("failed to read `{}`", from.display());
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        let path = format!("{to}{}", name.to_string_lossy());
        if entry.file_type().with_context(failed)?.is_dir() {
            add_rootfs(tree, &entry.path(), &format!("{path}/"))?;
        } else {
            let text = fs::read_to_string(entry.path()).with_context(failed)?;
            // A clone on Windows may have other line ends.
            let text = text.replace("\r\n", "\n").replace("@VERSION@", VERSION);
            let mode = if path == "etc/shadow" { 0o600 } else { 0o644 };
            tree.file(&path, mode, 0, text.into_bytes());
        }
    }
    Ok(())
}

fn source_note(sources: &str) -> String {
    format!(
        "/bin/busybox was built by Debian from these source packages:\n\n{sources}\n\n\
         Get them by `apt-get source NAME=VERSION` on a Debian system with source entries,\n\
         or from https://snapshot.debian.org/package/NAME/VERSION/.\n"
    )
}

fn is_installed() -> bool {
    let query = [
        "--show",
        "--showformat=${db:Status-Status}",
        "busybox-static",
    ];
    output_of(Command::new("dpkg-query").args(query)).is_some_and(|status| status == "installed")
}

fn installed() -> Result<Package> {
    let format = "--showformat=${source:Package}=${source:Version}\n${Built-Using}";
    let sources = output_of(Command::new("dpkg-query").args(["--show", format, "busybox-static"]))
        .context("failed to ask for the source of `busybox-static`")?;
    let copyright = fs::read("/usr/share/doc/busybox-static/copyright")
        .context("failed to read the copyright file of `busybox-static`")?;
    Ok(Package {
        busybox: Busybox::installed()?,
        copyright,
        sources: tidy_sources(&sources),
    })
}

/// Takes the package from Debian's servers, without installing it.
fn downloaded(architecture: Architecture) -> Result<Package> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let name = format!("busybox-static:{}", architecture.debian_name());
    run(Command::new("apt-get")
        .args(["--quiet=2", "download", &name])
        .current_dir(folder.path()))?;
    let package =
        find(folder.path(), "deb").with_context(|| format!("`{name}` was not downloaded"))?;
    let root = folder.path().join("root");
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&package)
        .arg(&root))?;
    let format = "--showformat=${source:Package}=${source:Version}\n${Built-Using}";
    let sources = output_of(
        Command::new("dpkg-deb")
            .arg("--show")
            .arg(format)
            .arg(&package),
    )
    .with_context(|| format!("failed to ask for the source of `{name}`"))?;
    let binary = ["bin/busybox", "usr/bin/busybox"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("`{name}` holds no busybox"))?;
    let commands = if architecture.is_host() {
        Busybox::commands_of(&binary)?
    } else {
        // The same package of another architecture holds the same commands.
        Busybox::installed()?.commands
    };
    let busybox = Busybox {
        binary: fs::read(&binary).context("failed to read busybox")?,
        commands,
    };
    let copyright = fs::read(root.join("usr/share/doc/busybox-static/copyright"))
        .context("failed to read the copyright file of `busybox-static`")?;
    Ok(Package {
        busybox,
        copyright,
        sources: tidy_sources(&sources),
    })
}

fn find(folder: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).context("failed to read a folder")? {
        let path = entry.context("failed to read a folder")?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    bail!("no file ends in `.{extension}`")
}

/// Turns Debian's `glibc (= 2.36-9)` into `glibc=2.36-9`, one a line.
fn tidy_sources(text: &str) -> String {
    text.split(['\n', ','])
        .map(|source| {
            source
                .replace(" (= ", "=")
                .replace(')', "")
                .trim()
                .to_owned()
        })
        .filter(|source| !source.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Package {
        Package {
            busybox: Busybox {
                binary: b"\x7fELF".to_vec(),
                commands: vec!["bin/sh".into(), "usr/bin/awk".into()],
            },
            copyright: b"GPL-2".to_vec(),
            sources: "busybox=1".into(),
        }
    }

    #[test]
    fn the_image_is_the_same_each_time() {
        if !Path::new("/usr/share/common-licenses/GPL-2").exists() {
            cove_testbed::skip("the licence texts of Debian are not here");
            return;
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image");
        let id = || {
            image(&folder, Architecture::X86_64, &example())
                .unwrap()
                .id()
                .to_owned()
        };
        assert_eq!(id(), id());
        let other = image(&folder, Architecture::Aarch64, &example()).unwrap();
        assert_ne!(id(), other.id());
    }

    #[test]
    fn sources_are_written_as_apt_takes_them() {
        let text = "busybox=1:1.35.0-4+deb12u1\nglibc (= 2.36-9+deb12u14), gcc-12 (= 12.2.0-14)";
        assert_eq!(
            tidy_sources(text),
            "busybox=1:1.35.0-4+deb12u1\nglibc=2.36-9+deb12u14\ngcc-12=12.2.0-14"
        );
    }
}
