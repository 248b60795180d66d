//! What the app carries inside: for each architecture the agent and the built-in image. Linux makes them; elsewhere
//! they are taken ready-made from the folder that `COVE_ASSETS` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::base_image::{self, Architecture};
use crate::workspace::{Workspace, output_of, run, write_if_changed};

/// Makes the assets and returns their folder; what is up to date stays untouched.
///
/// An asset of another architecture than this machine's is left out with a note when the tools for it are missing.
pub(crate) fn make(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(ready) = std::env::var_os("COVE_ASSETS") {
        let ready = workspace.root().join(ready);
        if !names_of(Architecture::ALL).any(|name| ready.join(name).is_file()) {
            bail!(
                "`COVE_ASSETS` names `{}`, which holds no asset",
                ready.display()
            );
        }
        return Ok(ready);
    }
    if !cfg!(target_os = "linux") {
        bail!(
            "the agent and the built-in image are made on Linux: take the `assets` of a test run or of a release, \
             unpack them, and name their folder in `COVE_ASSETS`"
        );
    }
    let folder = workspace.root().join("src-tauri/assets");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to make `{}`", folder.display()))?;
    for architecture in Architecture::ALL {
        let made = make_for(workspace, architecture, &folder);
        match made {
            Err(error) if !architecture.is_host() => {
                println!("note: no assets for {}: {error:#}", architecture.name());
                // Better none than those of another day.
                for name in names_of([architecture]) {
                    remove(&folder.join(name))?;
                }
            }
            made => made?,
        }
    }
    Ok(folder)
}

fn make_for(workspace: &Workspace, architecture: Architecture, folder: &Path) -> Result<()> {
    let agent = agent(workspace, architecture)?;
    let image = base_image::archive(workspace, architecture)?;
    let [agent_name, image_name] = asset_names(architecture);
    write_if_changed(&folder.join(agent_name), &agent)?;
    write_if_changed(&folder.join(image_name), &image)
}

fn agent(workspace: &Workspace, architecture: Architecture) -> Result<Vec<u8>> {
    let target = format!("{}-unknown-linux-gnu", architecture.name());
    let mut cargo = workspace.cargo();
    if !architecture.is_host() {
        let linker = format!("{}-linux-gnu-gcc", architecture.name());
        if output_of(Command::new(&linker).arg("--version")).is_none() {
            bail!("`{linker}` is not installed");
        }
        let variable = target.to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
    }
    let mut rustc = Command::new("rustc");
    let library = output_of(rustc.args(["--print", "target-libdir", "--target", &target]));
    if !library.is_some_and(|folder| Path::new(&folder).is_dir()) {
        bail!("the Rust target `{target}` is not installed");
    }
    // A folder of its own: the flags differ from those of everything else, which would be compiled anew.
    let build = workspace.target().join("static");
    cargo
        .args([
            "build",
            "--quiet",
            "--package",
            "cove-agent",
            "--bin",
            "cove-agent",
        ])
        .args(["--profile", "agent", "--target", &target])
        .env("CARGO_TARGET_DIR", &build)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // Relocations in short, where the linker knows how, and nothing for unwinding, which an agent that aborts never does: a
        // tenth of it would be nothing else.
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C force-unwind-tables=no -C link-arg=-Wl,-z,pack-relative-relocs,--no-eh-frame-hdr",
        );
    run(&mut cargo)?;
    let binary = build.join(&target).join("agent/cove-agent");
    fs::read(&binary).with_context(|| format!("failed to read `{}`", binary.display()))
}

fn asset_names(architecture: Architecture) -> [String; 2] {
    let name = architecture.name();
    [format!("cove-agent-{name}"), format!("base-{name}.tar.gz")]
}

fn names_of(architectures: impl IntoIterator<Item = Architecture>) -> impl Iterator<Item = String> {
    architectures.into_iter().flat_map(asset_names)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove `{}`", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
