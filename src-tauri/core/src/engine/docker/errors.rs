//! The client's errors, made into ours.

use bollard::errors::Error as ApiError;

use super::wording;
use crate::engine::EngineProblem;
use crate::error::{EngineCommand, Error};

pub(super) fn is_not_found(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

pub(super) fn connection_problem(error: &ApiError) -> EngineProblem {
    let chain = cause_chain(error);
    let kind = io_kind(error);
    wording::connection_problem(kind, &chain)
}

pub(super) fn translate(command: EngineCommand, operation: &str, error: &ApiError) -> Error {
    match error {
        ApiError::DockerResponseServerError {
            status_code,
            message,
        } => wording::refusal(command, operation, Some(*status_code), message),
        ApiError::DockerStreamError { error } => wording::refusal(command, operation, None, error),
        ApiError::HyperLegacyError { .. }
        | ApiError::HyperResponseError { .. }
        | ApiError::IOError { .. }
        | ApiError::SocketNotFoundError(_)
        | ApiError::RequestTimeoutError => {
            let problem = connection_problem(error);
            Error::EngineUnavailable {
                reason: problem.reason,
                message: format!("failed to {operation}: {}", problem.message),
            }
        }
        _ => Error::EngineRefused {
            operation: operation.to_owned(),
            status: None,
            message: cause_chain(error),
        },
    }
}

pub(super) fn pull_error(command: EngineCommand, image: &str, error: &ApiError) -> Error {
    let (status, message) = match error {
        ApiError::DockerResponseServerError {
            status_code,
            message,
        } => (Some(*status_code), message),
        ApiError::DockerStreamError { error } => (None, error),
        _ => return translate(command, "pull the image", error),
    };
    match wording::pull_failure(status, message) {
        Some(reason) => Error::ImageUnavailable {
            image: image.to_owned(),
            reason,
            message: wording::without_echo(message),
            command,
        },
        None => wording::refusal(command, "pull the image", status, message),
    }
}

fn io_kind(error: &ApiError) -> Option<std::io::ErrorKind> {
    if let ApiError::SocketNotFoundError(_) = error {
        return Some(std::io::ErrorKind::NotFound);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

/// Writes an error with its causes, each once.
fn cause_chain(error: &ApiError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
