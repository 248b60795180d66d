//! The layers of an image and what a pull says of them, in words that every engine's own are put into.
//!
//! Plain types at the ground of the house: an engine tells of layers in them, an estimate counts them.

/// Layers of an image that are looked at. Engines stack 127 at most.
pub const LAYER_LIMIT: usize = 1_000;

/// How an engine describes the layers of an image that it pulls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullDialect {
    /// Docker names all of them at the start, then each step of each.
    #[default]
    AtOnce,
    /// Podman names each as its download begins, then tells of it once a second. It says nothing of
    /// extraction, and tells of the image's configuration as if it were a layer.
    AsTheyCome,
}

/// A step that a layer took in a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullMessage {
    /// Names the layer within this pull.
    pub layer: String,
    /// What happened to it.
    pub step: LayerStep,
}

/// How large a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// Its digest, or the beginning of it.
    pub digest: String,
    /// Bytes to download.
    pub bytes: u64,
}

/// What a pull does with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerStep {
    /// It is part of the image and has to be fetched.
    Announced,
    /// Bytes of it arrived.
    Downloading {
        /// Bytes so far.
        current: u64,
        /// Bytes in all; `None` while the engine has not said.
        total: Option<u64>,
    },
    /// The connection broke and the download starts again.
    Retrying,
    /// All its bytes arrived.
    Downloaded,
    /// It is being unpacked; engines that count seconds rather than bytes give no total.
    Extracting {
        /// Bytes so far.
        current: u64,
        /// Bytes in all; `None` where the engine does not say.
        total: Option<u64>,
    },
    /// It is on the engine now.
    Done,
    /// It was on the engine before, or at least its bytes were.
    Existing,
}
