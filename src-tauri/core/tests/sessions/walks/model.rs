//! What a session may be, and what may become of it.

use std::collections::BTreeSet;

use anyhow::Result;
use cove_core::error::{Error, ErrorCode};
use cove_core::session::{SessionState, SessionStatus};

use super::steps::Ask;

/// A session's state, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Is {
    Provisioning,
    Ready,
    Stopped,
    Interrupted,
    Failed,
    Cancelled,
    Gone,
}

impl From<SessionState> for Is {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Provisioning => Self::Provisioning,
            SessionState::Ready => Self::Ready,
            // Nobody pauses anything here, and no walk follows its engine, so that nobody takes note that it is away.
            SessionState::Paused | SessionState::Stopped | SessionState::Away => Self::Stopped,
            SessionState::Failed => Self::Failed,
            SessionState::Cancelled => Self::Cancelled,
            SessionState::Interrupted => Self::Interrupted,
        }
    }
}

/// Whether something of a session is on the engine when all is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Absent,
    Present,
    /// An undo or a deletion failed, and that was told.
    Perhaps,
}

/// What may become of a session without anybody asking. In trouble, runs fail and connections break.
pub(super) fn passes(is: Is, trouble: bool) -> Vec<Is> {
    match is {
        Is::Provisioning if trouble => vec![Is::Ready, Is::Failed],
        Is::Provisioning => vec![Is::Ready],
        Is::Ready if trouble => vec![Is::Stopped],
        Is::Ready | Is::Stopped | Is::Interrupted | Is::Failed | Is::Cancelled | Is::Gone => vec![],
    }
}

/// What a successful answer means for the session that was asked for; `truth` is what the engine's
/// labels say of it.
pub(super) fn effect(ask: Ask, is: Is, truth: Is) -> Is {
    let found = if is == Is::Gone { truth } else { is };
    let rests = matches!(
        found,
        Is::Stopped | Is::Interrupted | Is::Failed | Is::Cancelled
    );
    match ask {
        Ask::Open(_) if rests => Is::Provisioning,
        Ask::Restart(_) | Ask::Rebuild(_) if rests || found == Is::Ready => Is::Provisioning,
        Ask::Cancel(_) | Ask::Stop(_) if found == Is::Provisioning => Is::Cancelled,
        Ask::Stop(_) if found == Is::Ready => Is::Stopped,
        Ask::Discard(_) if found == Is::Interrupted => listed(Is::Stopped, truth),
        Ask::Delete(_) => Is::Gone,
        Ask::DeleteContainer(_) => listed(Is::Stopped, truth),
        Ask::List => listed(is, truth),
        Ask::Open(_)
        | Ask::Restart(_)
        | Ask::Rebuild(_)
        | Ask::Cancel(_)
        | Ask::Stop(_)
        | Ask::Discard(_)
        | Ask::Rename(_)
        | Ask::Duplicate(_)
        | Ask::Status(_)
        | Ask::ListDir(_) => found,
    }
}

/// What a look at the engine's labels means for a session.
pub(super) fn listed(is: Is, truth: Is) -> Is {
    match is {
        Is::Gone => truth,
        Is::Ready | Is::Stopped | Is::Interrupted if truth == Is::Gone => Is::Gone,
        Is::Ready
        | Is::Stopped
        | Is::Interrupted
        | Is::Provisioning
        | Is::Failed
        | Is::Cancelled => is,
    }
}

pub(super) type States = BTreeSet<Is>;

/// Applies a map until nothing new comes of it.
pub(super) fn closure(mut states: States, map: impl Fn(Is) -> Vec<Is>) -> States {
    loop {
        let more: States = states.iter().flat_map(|is| map(*is)).collect();
        let count = states.len();
        states.extend(more);
        if states.len() == count {
            return states;
        }
    }
}

/// Returns whether a session in this state may give this answer.
pub(super) fn fits(
    ask: Ask,
    is: Is,
    truth: Is,
    result: &Result<Option<SessionStatus>, Error>,
) -> bool {
    let found = if is == Is::Gone { truth } else { is };
    match result.as_ref().map_err(Error::code) {
        Ok(Some(status)) => found != Is::Gone && Is::from(status.state) == effect(ask, is, truth),
        Ok(None) => match ask {
            Ask::ListDir(_) => found == Is::Ready,
            _ => found != Is::Gone || ask.deletes(),
        },
        // To restart one is to look at the engine on the way.
        Err(ErrorCode::SessionNotFound) => {
            found == Is::Gone || truth == Is::Gone && matches!(ask, Ask::Restart(_))
        }
        Err(ErrorCode::SessionNotReady) => found != Is::Ready && found != Is::Gone,
        Err(ErrorCode::FileNotUsable) => found == Is::Ready,
        Err(_) => true,
    }
}

/// What may have become of a session although the engine refused something.
pub(super) fn refused_effect(ask: Ask, is: Is) -> Is {
    match (ask, is) {
        (
            Ask::Stop(_) | Ask::Restart(_) | Ask::Delete(_) | Ask::DeleteContainer(_),
            Is::Provisioning,
        ) => Is::Cancelled,
        (Ask::Stop(_) | Ask::Restart(_) | Ask::Delete(_) | Ask::DeleteContainer(_), Is::Ready) => {
            Is::Stopped
        }
        (Ask::Discard(_), Is::Interrupted) => Is::Stopped,
        _ => is,
    }
}

pub(super) fn effect_if_asked(ask: Ask, is: Is, truth: Is) -> Is {
    match ask {
        Ask::List => is,
        _ => effect(ask, is, truth),
    }
}
