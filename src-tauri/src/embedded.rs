//! The files for the containers that `build.rs` put into this binary.

use std::borrow::Cow;

use cove_core::assets::Assets;

/// Name and content of each file.
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Returns the agents and built-in images of this build.
pub(crate) fn assets() -> Assets {
    let assets = Assets::from_files(
        FILES
            .iter()
            .map(|(name, content)| (Cow::Borrowed(*name), (*content).into())),
    );
    if assets.agents.is_empty() || assets.base_images.is_empty() {
        log::error!(
            "this build has no agent or no built-in image; `cargo xtask build` makes a whole one"
        );
    }
    assets
}
