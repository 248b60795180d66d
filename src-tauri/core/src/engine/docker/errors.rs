//! The client's errors, made into ours.

use bollard::errors::Error as ApiError;

use super::wording;
use crate::engine::EngineProblem;
use crate::error::{EngineCommand, EngineReason, Error, ImageReason};
use crate::words;

pub(super) fn is_not_found(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// Tells why an engine that was connected to, or was to be, cannot be used.
pub(super) fn connection_problem(error: &ApiError) -> EngineProblem {
    if let Some(failure) = tls_failure(error) {
        return EngineProblem {
            reason: EngineReason::Tls,
            message: tls_words(failure),
        };
    }
    match error {
        ApiError::DockerResponseServerError {
            status_code,
            message,
        } if *status_code < 500 => return wording::stranger(Some(*status_code), message),
        ApiError::JsonDataError { message, .. } => return wording::stranger(None, message),
        _ => {}
    }
    let kind = io_kind(error);
    wording::connection_problem(kind, &cause_chain(error))
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
        _ => Error::EngineUnreadable {
            operation: operation.to_owned(),
            message: words::tamed(&cause_chain(error)),
        },
    }
}

/// Tells why a pull failed; `problem` is why the user's credential could not be had, if it could not.
pub(super) fn pull_error(
    command: EngineCommand,
    image: &str,
    problem: Option<&str>,
    error: &ApiError,
) -> Error {
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
            reason: match (reason, problem) {
                (ImageReason::Unauthorized, Some(_)) => ImageReason::Credentials,
                (reason, _) => reason,
            },
            // A registry also says "not found" to whom it does not know.
            message: match (reason, problem) {
                (ImageReason::Unauthorized | ImageReason::NotFound, Some(problem)) => {
                    format!(
                        "{problem}; the registry said: {}",
                        wording::without_echo(message)
                    )
                }
                _ => wording::without_echo(message),
            },
            command,
        },
        None => wording::refusal(command, "pull the image", status, message),
    }
}

/// Returns what went wrong with encryption, if that is what went wrong.
fn tls_failure<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An error of the system's kind holds another without calling it its cause.
    let held = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error
        .downcast_ref()
        .or_else(|| held.and_then(|held| tls_failure(held)))
        .or_else(|| error.source().and_then(tls_failure))
}

fn tls_words(failure: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Failure};
    let fixed = match failure {
        Failure::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is not from an authority that is trusted for it"
        }
        Failure::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Failure::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "its certificate is for another name than this address",
        Failure::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure,
        ) => "it wants a certificate of the user's that it knows, and was shown none or another",
        Failure::InvalidMessage(_) => "what answers there does not speak TLS",
        other => return other.to_string(),
    };
    fixed.to_owned()
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

#[cfg(test)]
mod tests {
    use cove_testbed::{Engine as TestEngine, TestImage};

    use crate::engine::docker::DockerPlaces;
    use crate::engine::{ContainerSpec, Places as _};
    use crate::error::ErrorCode;

    fn spec(image: &str) -> ContainerSpec {
        ContainerSpec {
            name: format!("cove-refused-{}", std::process::id()),
            hostname: "refused".to_owned(),
            image: image.to_owned(),
            command: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
            environment: Vec::new(),
            labels: crate::engine::Labels::new(),
            volume: ("cove-refused".to_owned(), "/workspace".to_owned()),
            cpu_limit: None,
            inner_volumes: Vec::new(),
            network: crate::engine::ContainerNetwork::None,
            memory_limit: None,
            memory_and_swap_limit: None,
            pids_limit: 64,
            may_gain_privileges: false,
        }
    }

    #[tokio::test]
    async fn what_a_user_can_cause_has_a_code_of_its_own_and_a_hint_that_helps() {
        let Some(host) = TestEngine::from_env_or_skip() else {
            return;
        };
        let places = DockerPlaces::at(&[host.host()]);
        let engine = places.first().await.unwrap().engine;
        host.load(&TestImage::Tiny.build().unwrap(), "refused:1")
            .unwrap();
        let plain = spec("refused:1");
        let code = |error: crate::error::Error| {
            let hint = error.hint();
            assert!(!hint.contains("log says more"), "{error}: {hint}");
            error.code()
        };

        let missing = engine.create_container(&spec("refused-no-such:1")).await;
        assert_eq!(code(missing.unwrap_err()), ErrorCode::ImageUnavailable);
        let greedy = ContainerSpec {
            cpu_limit: Some(200.0),
            ..plain.clone()
        };
        let greedy = engine.create_container(&greedy).await;
        assert_eq!(code(greedy.unwrap_err()), ErrorCode::LimitRefused);
        let tight = ContainerSpec {
            memory_limit: Some(1_000_000),
            ..plain.clone()
        };
        let tight = engine.create_container(&tight).await;
        assert_eq!(code(tight.unwrap_err()), ErrorCode::LimitRefused);

        let container = engine.create_container(&plain).await.unwrap();
        let short: String = container.chars().take(12).collect();
        let used = engine.remove_volume("cove-refused").await.unwrap_err();
        assert_eq!(
            used.to_string(),
            format!(
                "failed to remove the volume `cove-refused`: it is used by the container `{short}`"
            )
        );
        assert_eq!(
            used.hint(),
            format!("Remove what uses it, with `docker rm --force {short}`, then try again.")
        );
        engine.remove_container(&container).await.unwrap();
        let gone = engine.start_container(&container).await;
        assert_eq!(code(gone.unwrap_err()), ErrorCode::ContainerGone);

        let lacking = ContainerSpec {
            command: vec!["/no/such/program".to_owned()],
            ..plain
        };
        let container = engine.create_container(&lacking).await.unwrap();
        let refused = engine.start_container(&container).await;
        assert_eq!(code(refused.unwrap_err()), ErrorCode::ContainerRefused);
        engine.remove_container(&container).await.unwrap();
        assert!(engine.remove_volume("cove-refused").await.unwrap());
    }
}
