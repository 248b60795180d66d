//! `cargo xtask build` and `bundle`: the release binary and the installers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::assets;
use crate::setup;
use crate::system::Need;
use crate::workspace::{Workspace, output_of, run, say};

/// Makes the release binary and puts it at `target/release/cove` of the clone.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    say("UI build");
    run(workspace.npm().args(["run", "--silent", "build"]))?;
    say("release build");
    run(workspace.cargo().args([
        "build",
        "--release",
        "--package",
        "cove",
        "--features",
        "custom-protocol",
    ]))?;
    let built = workspace.program("release", "cove");
    let place = workspace.root().join("target/release");
    fs::create_dir_all(&place).with_context(|| format!("failed to make `{}`", place.display()))?;
    let placed = place.join(built.file_name().unwrap_or_default());
    if placed != built {
        // Not copied over the old one: that may be running.
        let new = place.join(".cove-new");
        fs::copy(&built, &new).with_context(|| format!("failed to copy `{}`", built.display()))?;
        fs::rename(&new, &placed)
            .with_context(|| format!("failed to write `{}`", placed.display()))?;
    }
    println!("binary: {}", placed.display());
    Ok(())
}

/// Makes the installers of this system and puts them into `target/release/installers` of the clone.
pub(crate) fn bundle(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    say("bundle");
    let kinds = if cfg!(windows) {
        "msi,nsis"
    } else if cfg!(target_os = "macos") {
        "dmg"
    } else {
        "deb,rpm"
    };
    let made = workspace.target().join("release/bundle");
    if made.exists() {
        // Installers of another version would be taken for new ones.
        fs::remove_dir_all(&made)
            .with_context(|| format!("failed to remove `{}`", made.display()))?;
    }
    run(workspace.tauri().args(["build", "--bundles", kinds]))?;
    let place = workspace.root().join("target/release/installers");
    let installers = installers(&made)?;
    if installers.is_empty() {
        bail!("no installer in `{}`", made.display());
    }
    for installer in installers {
        if installer.extension().is_some_and(|kind| kind == "deb") {
            check_deb(&installer)?;
        }
        fs::create_dir_all(&place)
            .with_context(|| format!("failed to make `{}`", place.display()))?;
        let placed = place.join(installer.file_name().unwrap_or_default());
        if placed != installer {
            fs::copy(&installer, &placed)
                .with_context(|| format!("failed to copy `{}`", installer.display()))?;
        }
        println!("installer: {}", placed.display());
    }
    Ok(())
}

fn prepare(workspace: &Workspace) -> Result<()> {
    setup::set_up(workspace, &[Need::Build])?;
    say("assets");
    assets::make(workspace)?;
    Ok(())
}

fn installers(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let failed = || format!("failed to read `{}`", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let kind = entry.with_context(failed)?.path();
        if !kind.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&kind).with_context(failed)? {
            let path = entry.with_context(failed)?.path();
            let extension = path
                .extension()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if ["deb", "rpm", "dmg", "msi", "exe"].contains(&extension.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Looks into the package for what an installed app cannot do without.
fn check_deb(package: &Path) -> Result<()> {
    let ask = |argument: &str| {
        output_of(Command::new("dpkg-deb").arg(argument).arg(package))
            .with_context(|| format!("failed to look into `{}`", package.display()))
    };
    let (fields, files) = (ask("--field")?, ask("--contents")?);
    for field in ["Package: cove", "libwebkit2gtk-4.1-0", "libgtk-3-0"] {
        if !fields.contains(field) {
            bail!("`{}` lacks `{field}`:\n{fields}", package.display());
        }
    }
    for file in [
        " usr/bin/cove",
        ".desktop",
        "icons/hicolor/128x128/apps/cove.png",
        "usr/share/doc/cove/copyright",
    ] {
        if !files.contains(file) {
            bail!("`{}` lacks `{file}`:\n{files}", package.display());
        }
    }
    Ok(())
}
