//! The built-in image: our own `rootfs/` and Debian's static busybox and bash, written without an engine. The same inputs
//! give the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use cove_testbed::{Busybox, Image, ImageConfig, Tree};

use crate::workspace::{Workspace, cache, output_of, run};

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

/// The Debian release whose packages the image holds, whatever this machine runs. In the one before it `wget -T` crashes.
const RELEASE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the image holds something of.
const PACKAGES: [&str; 4] = ["busybox-static", "bash-static", "ncurses-base", "libc-bin"];

/// What the image takes from Debian.
struct Parts {
    busybox: Busybox,
    bash: Vec<u8>,
    /// What terminals can do and what a letter is, by path: without that bash does not know how to edit a line.
    data: BTreeMap<String, Vec<u8>>,
    notices: Vec<Notice>,
}

/// What is to be said of a package.
struct Notice {
    package: &'static str,
    copyright: Vec<u8>,
    /// `busybox=1:1.37.0-6`, source packages with versions, one a line.
    sources: String,
}

/// Writes the archive that `docker load` reads.
pub(crate) fn archive(workspace: &Workspace, architecture: Architecture) -> Result<Vec<u8>> {
    let parts = parts(architecture)?;
    let image = image(
        &workspace.root().join("src-tauri/image"),
        architecture,
        &parts,
    )?;
    let mut bytes = Vec::new();
    image.write_compressed_archive(&[&format!("cove.invalid/base:{VERSION}")], &mut bytes)?;
    Ok(bytes)
}

fn image(folder: &Path, architecture: Architecture, parts: &Parts) -> Result<Image> {
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
    parts.busybox.add_to(&mut tree);
    tree.file("bin/bash", 0o755, 0, parts.bash.clone());
    for (path, content) in &parts.data {
        tree.file(path, 0o644, 0, content.clone());
    }
    add_rootfs(&mut tree, &folder.join("rootfs"), "")?;

    for notice in &parts.notices {
        let folder = format!("usr/share/doc/{}", notice.package);
        let copyright = notice.copyright.clone();
        tree.file(&format!("{folder}/copyright"), 0o644, 0, copyright);
        let source = source_note(notice).into_bytes();
        tree.file(&format!("{folder}/SOURCE"), 0o644, 0, source);
    }
    let notice = folder.join("NOTICE.md");
    let notice =
        fs::read(&notice).with_context(|| format!("failed to read `{}`", notice.display()))?;
    tree.file("usr/share/doc/cove/NOTICE.md", 0o644, 0, notice);
    for licence in ["GPL-2", "GPL-3", "LGPL-2.1"] {
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
            "Apache-2.0 AND GPL-2.0-only AND GPL-3.0-or-later AND LGPL-2.1-or-later AND X11-distribute-modifications-variant",
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
        cmd: vec!["/bin/bash".to_owned(), "-l".to_owned()],
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
            let mode = match &*path {
                "etc/shadow" => 0o600,
                program if program.starts_with("usr/bin/") => 0o755,
                _ => 0o644,
            };
            tree.file(&path, mode, 0, text.into_bytes());
        }
    }
    Ok(())
}

fn source_note(
    Notice {
        package, sources, ..
    }: &Notice,
) -> String {
    format!(
        "What the image holds of `{package}` was built by Debian from these source packages:\n\n{sources}\n\n\
         Get them by `apt-get source NAME=VERSION` on a Debian system with source entries,\n\
         or from https://snapshot.debian.org/package/NAME/VERSION/.\n"
    )
}

fn parts(architecture: Architecture) -> Result<Parts> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let mut notices = Vec::new();
    for package in PACKAGES {
        let archive = package_file(package, architecture)?;
        let root = folder.path().join(package);
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .args([&archive, &root]))?;
        let format = "--showformat=${source:Package}=${source:Version}\n${Built-Using}";
        let mut show = Command::new("dpkg-deb");
        let sources = output_of(show.arg("--show").arg(format).arg(&archive))
            .with_context(|| format!("failed to ask for the source of `{package}`"))?;
        notices.push(Notice {
            package,
            copyright: read(&root.join(format!("usr/share/doc/{package}/copyright")))?,
            sources: tidy_sources(&sources),
        });
    }
    let program = |package: &str, name: &str| {
        let root = folder.path().join(package);
        let paths = ["bin", "usr/bin"].map(|folder| root.join(folder).join(name));
        let found = paths.into_iter().find(|path| path.is_file());
        found.with_context(|| format!("`{package}` holds no `{name}`"))
    };
    let busybox = program("busybox-static", "busybox")?;
    let commands = if architecture.is_host() {
        Busybox::commands_of(&busybox)?
    } else {
        // The same package of another architecture holds the same commands.
        let host = Architecture::ALL.into_iter().find(|it| it.is_host());
        let host = host.context("the built-in image is not made on this architecture")?;
        parts(host)?.busybox.commands
    };
    let mut data = BTreeMap::new();
    for (package, path) in [
        ("ncurses-base", "usr/share/terminfo"),
        ("libc-bin", "usr/lib/locale/C.utf8"),
    ] {
        let below = folder.path().join(package).join(path);
        data.append(&mut files_below(&below, path)?);
    }
    Ok(Parts {
        busybox: Busybox {
            binary: read(&busybox)?,
            commands,
        },
        bash: read(&program("bash-static", "bash-static")?)?,
        data,
        notices,
    })
}

/// Returns a package of [`RELEASE`], from an earlier time or from Debian's servers, whose signatures `apt` checks. Where
/// that cannot be had, as without Debian's keys, it is what this machine's own sources have, and that is said.
fn package_file(package: &str, architecture: Architecture) -> Result<PathBuf> {
    let architecture = architecture.debian_name();
    let kept = cache().join("debian").join(RELEASE).join(architecture);
    fs::create_dir_all(&kept)
        .with_context(|| format!("failed to make the folder `{}`", kept.display()))?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with(&format!("{package}_")))
    };
    if let Some(found) = archives_in(&kept)?.into_iter().find(is_it) {
        return Ok(found);
    }
    let name = format!("{package}:{architecture}");
    let release = Sources::of_release(architecture)
        .and_then(|sources| sources.download(&name, &kept))
        .and_then(|()| archives_in(&kept));
    let found = match release {
        Ok(found) => found,
        Err(error) => {
            println!("note: `{name}` is not Debian {RELEASE}'s but this system's: {error:#}");
            let own = cache().join("debian/own").join(architecture);
            fs::create_dir_all(&own)
                .with_context(|| format!("failed to make the folder `{}`", own.display()))?;
            Sources::default().download(&name, &own)?;
            archives_in(&own)?
        }
    };
    let found = found.into_iter().find(is_it);
    found.with_context(|| format!("`{name}` was not downloaded"))
}

/// Where `apt` takes packages from; by default where this machine does.
#[derive(Default)]
struct Sources {
    options: Vec<String>,
    /// Lists of packages; they go with it.
    _state: Option<tempfile::TempDir>,
}

impl Sources {
    /// Asks Debian's servers what [`RELEASE`] has. Nothing of this machine's own state is read or changed.
    fn of_release(architecture: &str) -> Result<Self> {
        let state = tempfile::tempdir().context("failed to make a folder")?;
        let at = |name: &str| state.path().join(name);
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(at(folder)).context("failed to make a folder")?;
        }
        let source = format!("deb [signed-by={KEYRING}] {MIRROR} {RELEASE} main\n");
        fs::write(at("sources.list"), source).context("failed to write `sources.list`")?;
        fs::write(at("status"), "").context("failed to write `status`")?;
        let options = [
            format!("Dir::Etc::sourcelist={}", at("sources.list").display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", at("lists").display()),
            format!("Dir::State::status={}", at("status").display()),
            format!("Dir::Cache={}", at("cache").display()),
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            "Acquire::Languages=none".to_owned(),
            // A list that cannot be had is a failure, not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let sources = Self {
            options: options
                .into_iter()
                .flat_map(|option| ["--option".to_owned(), option])
                .collect(),
            _state: Some(state),
        };
        run(sources.apt().arg("update"))?;
        Ok(sources)
    }

    /// Downloads a package into a folder, without installing it.
    fn download(&self, name: &str, to: &Path) -> Result<()> {
        run(self.apt().args(["download", name]).current_dir(to))
    }

    fn apt(&self) -> Command {
        let mut apt = Command::new("apt-get");
        apt.arg("--quiet=2").args(&self.options);
        apt
    }
}

fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).context("failed to read a folder")? {
        let path = entry.context("failed to read a folder")?.path();
        if path.extension().is_some_and(|found| found == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the files below a folder, by their paths with that of the folder replaced.
fn files_below(folder: &Path, path: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = || format!("failed to read `{}`", folder.display());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().with_context(failed)?.is_dir() {
            files.append(&mut files_below(&entry.path(), &path)?);
        } else {
            // Links among them become files: they are small.
            files.insert(path, read(&entry.path())?);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))
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

    fn example() -> Parts {
        Parts {
            busybox: Busybox {
                binary: b"\x7fELF".to_vec(),
                commands: vec!["bin/sh".into(), "usr/bin/awk".into()],
            },
            bash: b"\x7fELF".to_vec(),
            data: BTreeMap::from([("usr/share/terminfo/d/dumb".to_owned(), vec![0x1a, 1])]),
            notices: vec![Notice {
                package: "busybox-static",
                copyright: b"GPL-2".to_vec(),
                sources: "busybox=1".into(),
            }],
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
