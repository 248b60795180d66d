//! What a walk is made of, and how walks are made up.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use crate::support::fake_engine::{Act, refused};

/// Something that is asked; the number chooses a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Open(usize),
    Restart(usize),
    Rebuild(usize),
    Rename(usize),
    Duplicate(usize),
    Discard(usize),
    /// Deletes the container and keeps the volume.
    DeleteContainer(usize),
    Cancel(usize),
    Stop(usize),
    Delete(usize),
    Status(usize),
    ListDir(usize),
    List,
}

impl Ask {
    /// Returns the number that chooses a session.
    pub(super) fn which(self) -> Option<usize> {
        match self {
            Self::Open(which)
            | Self::Restart(which)
            | Self::Rebuild(which)
            | Self::Rename(which)
            | Self::Duplicate(which)
            | Self::Discard(which)
            | Self::DeleteContainer(which)
            | Self::Cancel(which)
            | Self::Stop(which)
            | Self::Delete(which)
            | Self::Status(which)
            | Self::ListDir(which) => Some(which),
            Self::List => None,
        }
    }

    /// Returns whether it asks for a session that need not be there.
    pub(super) fn deletes(self) -> bool {
        matches!(self, Self::Delete(_) | Self::DeleteContainer(_))
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// A session of the built-in image, or of one that is pulled.
    Create {
        pulls: bool,
    },
    /// Asks and waits for the answer.
    Do(Ask),
    /// Asks both at once and waits for both answers.
    Both(Ask, Ask),
    /// Asks, and goes on at once.
    Leave(Ask),
    /// How the engine's next answer to this goes.
    Fault(&'static str, Fault),
    /// The images are not on the engine.
    LoseImages,
    EngineAway,
    EngineBack,
    /// Somebody else kills or removes the container.
    Kill(usize),
    Remove(usize),
    Pass(u64),
    /// No more faults, and time until all is quiet.
    Rest,
    /// The app ends and starts again, from rest.
    Relaunch,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A little late: no promise suffers.
    Late(u64),
    /// Later than anybody waits.
    VeryLate,
    Refused,
    /// Done, and the answer is lost.
    Lost,
    Never,
}

/// Calls that look, and calls that change something.
pub(super) const LOOKS: [&str; 8] = [
    "facts",
    "image",
    "volume",
    "container",
    "owned",
    "exec",
    "pull",
    "layer_sizes",
];
pub(super) const CHANGES: [&str; 9] = [
    "rename_container",
    "download",
    "load_image",
    "create_volume",
    "create_container",
    "upload",
    "start_container",
    "stop_container",
    "remove_container",
];
/// What a cancel waits for at an engine that is slow: a look for a session that is not known. Undos that take
/// longer than a cancel may go on after it.
pub(super) const CANCEL_LOOKS: [&str; 2] = ["facts", "owned"];

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    let which = 0_usize..8;
    prop_oneof![
        5 => which.clone().prop_map(Ask::Open),
        2 => which.clone().prop_map(Ask::Restart),
        2 => which.clone().prop_map(Ask::Rebuild),
        1 => which.clone().prop_map(Ask::Rename),
        1 => which.clone().prop_map(Ask::Duplicate),
        1 => which.clone().prop_map(Ask::Discard),
        2 => which.clone().prop_map(Ask::DeleteContainer),
        4 => which.clone().prop_map(Ask::Cancel),
        3 => which.clone().prop_map(Ask::Stop),
        3 => which.clone().prop_map(Ask::Delete),
        1 => which.clone().prop_map(Ask::Status),
        2 => which.prop_map(Ask::ListDir),
        2 => Just(Ask::List),
    ]
}

pub(super) fn fault() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => (1_u64..3_000).prop_map(Fault::Late),
        2 => Just(Fault::VeryLate),
        3 => Just(Fault::Refused),
        2 => Just(Fault::Lost),
        1 => Just(Fault::Never),
    ];
    let what = prop_oneof![
        1 => select(LOOKS.to_vec()),
        2 => select(CHANGES.to_vec()),
        1 => Just("remove_volume"),
    ];
    (what, how).prop_map(|(what, how)| Step::Fault(what, how))
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let which = 0_usize..8;
    prop_oneof![
        3 => any::<bool>().prop_map(|pulls| Step::Create { pulls }),
        8 => ask().prop_map(Step::Do),
        3 => (ask(), ask()).prop_map(|(one, other)| Step::Both(one, other)),
        2 => ask().prop_map(Step::Leave),
        5 => fault(),
        1 => Just(Step::LoseImages),
        1 => Just(Step::EngineAway),
        1 => Just(Step::EngineBack),
        1 => which.clone().prop_map(Step::Kill),
        1 => which.prop_map(Step::Remove),
        3 => prop_oneof![0_u64..10, 10_u64..15_000].prop_map(Step::Pass),
        2 => Just(Step::Rest),
        1 => Just(Step::Relaunch),
    ]
}

/// A walk: the time that every call to the engine takes, in milliseconds, and the steps.
pub(super) fn walk() -> impl Strategy<Value = (u64, Vec<Step>)> {
    let first = any::<bool>().prop_map(|pulls| Step::Create { pulls });
    let steps = (first, prop::collection::vec(step(), 1..24));
    let steps = steps.prop_map(|(first, more)| std::iter::once(first).chain(more).collect());
    (select(vec![0, 0, 20, 200]), steps)
}

impl Fault {
    /// Returns what the engine does with its next call of an operation.
    pub(super) fn act(self, operation: &str) -> Act {
        match self {
            Self::Late(milliseconds) => Act::Late(Duration::from_millis(milliseconds)),
            Self::VeryLate => Act::Late(Duration::from_secs(20)),
            Self::Refused => Act::Fail(refused(operation, "made up")),
            Self::Lost => Act::Lost(Duration::from_secs(1)),
            Self::Never => Act::Never,
        }
    }
}

/// A walk on a real engine, whose time and faults are its own.
pub(super) fn real_walk() -> impl Strategy<Value = Vec<Step>> {
    let which = 0_usize..8;
    let step = prop_oneof![
        2 => prop::bool::weighted(0.2).prop_map(|pulls| Step::Create { pulls }),
        8 => ask().prop_map(Step::Do),
        3 => (ask(), ask()).prop_map(|(one, other)| Step::Both(one, other)),
        2 => ask().prop_map(Step::Leave),
        1 => which.clone().prop_map(Step::Kill),
        1 => which.prop_map(Step::Remove),
        4 => (0_u64..600).prop_map(Step::Pass),
        1 => Just(Step::Rest),
        1 => Just(Step::Relaunch),
    ];
    let first = Just(Step::Create { pulls: false });
    let steps = (first, prop::collection::vec(step, 2..10));
    steps.prop_map(|(first, more)| std::iter::once(first).chain(more).collect())
}
