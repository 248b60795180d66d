//! `cargo xtask icons`: all sizes from our one drawing, by Tauri's tool; what no bundle of ours needs is left out.

use std::fs;

use anyhow::{Context as _, Result};

use crate::setup;
use crate::workspace::{Workspace, run};

const KEPT: [&str; 6] = [
    "32x32.png",
    "128x128.png",
    "128x128@2x.png",
    "icon.icns",
    "icon.ico",
    "icon.png",
];

/// Draws the icons anew.
pub(crate) fn make(workspace: &Workspace) -> Result<()> {
    setup::set_up(workspace, &[])?;
    let made = tempfile::tempdir().context("failed to make a folder")?;
    let icons = workspace.root().join("icons");
    run(workspace
        .tauri()
        .arg("icon")
        .arg(icons.join("cove.svg"))
        .arg("--output")
        .arg(made.path()))?;
    for name in KEPT {
        fs::copy(made.path().join(name), icons.join(name))
            .with_context(|| format!("failed to copy `{name}`"))?;
    }
    Ok(())
}
