//! What engines and registries put in words, turned into codes. The API gives an HTTP status and a
//! text; the text is the only thing that tells a missing image from a missing network, so it is
//! matched here and nowhere else. The phrases are those of Docker 20.10 to 28, containerd and
//! Podman 4.

use std::io::ErrorKind;

use crate::engine::{ContainerState, EngineProblem, LayerStep};
use crate::error::{EngineCommand, EngineReason, Error, ImageReason, NetworkReason};
use crate::session::SessionState;
use crate::words;

/// The oldest API that Cove speaks: that of Docker 19.03, and of Podman 4.
pub(super) const OLDEST_API: &str = "1.40";

/// Returns whether an API version is [`OLDEST_API`] or newer.
pub(super) fn is_supported_api(version: &str) -> bool {
    let parts = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parts(version) >= parts(OLDEST_API)
}

/// Returns the kernel's name of a processor that Docker names in Go's way.
pub(super) fn kernel_architecture(name: &str) -> String {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i686",
        other => other,
    }
    .to_owned()
}

/// Tells why a connection failed.
pub(super) fn connection_problem(kind: Option<ErrorKind>, message: &str) -> EngineProblem {
    let reason = match kind {
        Some(ErrorKind::NotFound) => EngineReason::NotInstalled,
        Some(ErrorKind::PermissionDenied) => EngineReason::NoPermission,
        _ => EngineReason::NotRunning,
    };
    let message = match kind {
        Some(ErrorKind::NotFound) => "there is no such socket".to_owned(),
        Some(ErrorKind::PermissionDenied) => "this user may not use it".to_owned(),
        Some(ErrorKind::ConnectionRefused) => "nobody answers there".to_owned(),
        _ => words::tamed(message),
    };
    EngineProblem { reason, message }
}

/// Tells what it means that something answers, and not as an engine does.
pub(super) fn stranger(status: Option<u16>, message: &str) -> EngineProblem {
    if message.contains("HTTP request to an HTTPS server") {
        return EngineProblem {
            reason: EngineReason::Tls,
            message: "it wants an encrypted connection, and none is configured".to_owned(),
        };
    }
    EngineProblem {
        reason: EngineReason::NotAnEngine,
        message: match status {
            Some(status) => format!("what answers there refuses to say what it is: HTTP {status}"),
            None => "what answers there does not speak as an engine does".to_owned(),
        },
    }
}

/// Tells what an engine's refusal of an operation means.
pub(super) fn refusal(
    command: EngineCommand,
    operation: &str,
    status: Option<u16>,
    message: &str,
) -> Error {
    let lower = message.to_lowercase();
    let full = [
        "no space left on device",
        "disk quota exceeded",
        // An overlay on a full disk is mounted all the same, without the folder that the engine looks for.
        "/work/work: no such file or directory",
    ];
    if full.iter().any(|words| lower.contains(words)) {
        return Error::DiskFull {
            operation: operation.to_owned(),
            command: Some(command),
        };
    }
    let has = |phrases: &[&str]| phrases.iter().any(|words| lower.contains(words));
    let (operation, message) = (operation.to_owned(), words::tamed(message));
    if has(&["no such container"]) {
        return Error::ContainerGone { operation };
    }
    // What is asked of a container that does not run; whoever asked thought that it does.
    if has(&["is paused"]) {
        return Error::SessionNotReady(SessionState::Paused.as_str());
    }
    if has(&[
        "is not running",
        "container state improper",
        "exec in a stopped container",
        "exec a container that has stopped",
    ]) {
        return Error::SessionNotReady(SessionState::Stopped.as_str());
    }
    if has(&[
        "range of cpus",
        "minimum memory limit",
        "pids limit",
        "memoryswap",
    ]) {
        return Error::LimitRefused { operation, message };
    }
    // Nothing but the session's volumes is mounted, so that it is their place which is no folder.
    let mounts = ["create the container", "start the container"].contains(&&*operation);
    let no_folder = [
        "is not directory",
        "not a directory",
        "too many links",
        "too many levels of symbolic links",
    ];
    if mounts && has(&no_folder) {
        return Error::WorkspaceUnusable(
            "where `/workspace` belongs, the image has a file, or a link that leads to no folder"
                .to_owned(),
        );
    }
    if let Some(reason) = network_problem(&lower) {
        return Error::NetworkUnavailable {
            operation,
            reason,
            message,
            command,
        };
    }
    // The runtime below the engine says why it cannot start what the image holds.
    if has(&[
        "oci runtime",
        "failed to create shim",
        "failed to create task",
        "crun:",
    ]) {
        return Error::ContainerRefused { operation, message };
    }
    Error::EngineRefused {
        operation,
        status,
        message,
    }
}

/// What engines say when they have no network for a container, in the order in which it is believed.
const NETWORK_PHRASES: [(NetworkReason, &[&str]); 3] = [
    (
        NetworkReason::NoAddresses,
        &[
            "non-overlapping ipv4 address pool",
            "predefined address pools have been fully subnetted",
            "could not find free subnet",
            "no available addresses on this pool",
            "no available ipv4 addresses",
            "failed to find free ip",
        ],
    ),
    (
        NetworkReason::NotSeparated,
        &[
            "cannot restrict inter-container communication",
            "br_netfilter",
            "option isolate",
        ],
    ),
    (
        NetworkReason::Firewall,
        &[
            "iptables failed",
            "iptables: no chain",
            "no chain/target/match by that name",
            "nft: ",
            "netavark: iptables",
        ],
    ),
];

fn network_problem(lower: &str) -> Option<NetworkReason> {
    let said = |(_, phrases): &(NetworkReason, &[&str])| {
        phrases.iter().any(|phrase| lower.contains(phrase))
    };
    NETWORK_PHRASES
        .into_iter()
        .find(said)
        .map(|(reason, _)| reason)
}

/// Returns whether a refusal says that there is no such network: `network 5e1f not found`, `network not found`.
pub(super) fn says_no_such_network(message: &str) -> bool {
    let lower = message.to_lowercase();
    let words: Vec<_> = lower.split_whitespace().collect();
    let named = |it: &[&str]| matches!(it, ["network", _, "not", "found", ..]);
    lower.contains("network not found")
        || lower.contains("no such network")
        || words.windows(4).any(named)
}

/// Returns whether a refusal to remove a network says that a container uses it.
pub(super) fn says_network_in_use(message: &str) -> bool {
    let lower = message.to_lowercase();
    ["has active endpoints", "network is being used"]
        .iter()
        .any(|phrase| lower.contains(phrase))
}

/// What engines say of a pull that failed, in the order in which it is believed: a text may hold several phrases.
const PULL_PHRASES: [(ImageReason, &[&str]); 8] = [
    (
        ImageReason::RateLimited,
        &["toomanyrequests", "too many requests", "rate limit"],
    ),
    (
        ImageReason::Platform,
        &[
            "no matching manifest",
            "does not match the specified platform",
            "no image found in manifest list",
        ],
    ),
    (
        ImageReason::Tls,
        &[
            "x509:",
            "certificate",
            "server gave http response to https client",
            "tls: ",
        ],
    ),
    (
        ImageReason::NotFound,
        &[
            "manifest unknown",
            "name unknown",
            "unknown blob",
            "blob unknown",
            "not found",
            "repository does not exist",
            "no such image",
        ],
    ),
    (
        ImageReason::Unauthorized,
        &[
            "unauthorized",
            "no basic auth credentials",
            "authentication required",
            "denied",
            "forbidden",
            "incorrect username or password",
        ],
    ),
    (
        ImageReason::NotARegistry,
        &[
            // A page instead of a document: of a network that wants a login first, as a rule.
            "invalid character '<'",
            "no realm specified",
            "did not include a token",
            "unable to decode token response",
            "failed to decode token",
            "unsupported auth scheme",
            "text/html",
        ],
    ),
    (
        ImageReason::NotAnImage,
        &[
            "unsupported media type",
            "unsupported manifest media type",
            "unexpected media type",
            "unsupported schema version",
            "missing signature key",
            "manifest invalid",
            "invalid character",
            "unexpected end of json input",
            "error processing tar file",
            "invalid tar header",
            "gzip: invalid header",
            "unsupported docker v1 repository request",
        ],
    ),
    (
        ImageReason::Network,
        &[
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "connection reset",
            "network is unreachable",
            "no route to host",
            "tls handshake timeout",
            "context deadline exceeded",
            "request canceled",
            "unexpected eof",
            ": eof",
            "proxyconnect",
            "server misbehaving",
            "broken pipe",
            "server closed idle connection",
            "transport connection broken",
            "redirects",
            // What arrived is not what was sent.
            "verification failed",
            "unexpected commit digest",
            "digest did not match",
        ],
    ),
];

/// Returns the containers that a refusal names by their ids, each short enough to be read.
pub(super) fn containers_named_in(message: &str) -> Vec<String> {
    let words = message.split(|c: char| !c.is_ascii_hexdigit());
    words
        .filter(|word| word.len() == 64)
        .map(|id| id.chars().take(12).collect())
        .collect()
}

/// Returns whether a refusal says that the engine has no such image.
pub(super) fn says_no_such_image(message: &str) -> bool {
    message.to_lowercase().contains("no such image")
}

/// Tells why a pull failed, or `None` when the registry has nothing to do with it.
pub(super) fn pull_failure(status: Option<u16>, message: &str) -> Option<ImageReason> {
    // What a file system denies is not the registry's doing.
    let lower = message.to_lowercase().replace("permission denied", "");
    let phrase = PULL_PHRASES
        .into_iter()
        .find(|(_, phrases)| phrases.iter().any(|phrase| lower.contains(phrase)))
        .map(|(reason, _)| reason);
    // A handshake that timed out is a matter of the network, not of trust.
    if lower.contains("tls handshake timeout") {
        return Some(ImageReason::Network);
    }
    if lower.contains("no space left on device") {
        return None;
    }
    // The engine says more of an answer that it could not read than of what it means.
    let quoted = registry_status(&lower).and_then(status_reason);
    let is_only_unreadable = matches!(
        phrase,
        Some(ImageReason::NotARegistry | ImageReason::NotAnImage)
    );
    if quoted.is_some() && is_only_unreadable {
        return quoted;
    }
    phrase
        .or(quoted)
        .or_else(|| refused_by_registry(&lower).then_some(ImageReason::NotARegistry))
        .or((status == Some(404)).then_some(ImageReason::NotFound))
}

/// Returns whether a registry refused in a way that registries have, and that is no answer to a pull.
fn refused_by_registry(lower: &str) -> bool {
    lower == "unsupported" || lower.starts_with("unknown: ")
}

/// Returns the HTTP status that an engine quotes when the body said nothing that it understands: a page of a proxy, as
/// a rule.
fn registry_status(lower: &str) -> Option<u16> {
    const BEFORE: [&str; 4] = [
        "error parsing http ",
        "unexpected http status: ",
        "unexpected status: ",
        "statuscode: ",
    ];
    let after = BEFORE
        .into_iter()
        .find_map(|words| lower.split_once(words))?
        .1;
    let end = after.find(|c: char| !c.is_ascii_digit());
    after.get(..end.unwrap_or(after.len()))?.parse().ok()
}

fn status_reason(status: u16) -> Option<ImageReason> {
    match status {
        401 | 403 => Some(ImageReason::Unauthorized),
        404 => Some(ImageReason::NotFound),
        429 => Some(ImageReason::RateLimited),
        500..=599 => Some(ImageReason::Network),
        400..=499 => Some(ImageReason::NotARegistry),
        _ => None,
    }
}

/// Returns an engine's message, fit to be shown, without the echo that registries' errors come with:
/// `manifest unknown: manifest unknown` is `manifest unknown`.
pub(super) fn without_echo(message: &str) -> String {
    let message = words::tamed(message);
    let mut parts: Vec<&str> = message.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}

/// Tells what a container does, in Docker's words and Podman's. One of which nothing is known does not run; starting it
/// shows what else it is.
pub(super) fn container_state(word: &str) -> ContainerState {
    match word {
        "created" | "configured" | "initialized" => ContainerState::Created,
        // Podman's last word before `stopped`.
        "running" | "stopping" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "removing" | "dead" => ContainerState::Unusable,
        _ => ContainerState::Exited,
    }
}

/// Tells what a line of a pull says about its layer, or `None` when it is not about a layer.
pub(super) fn layer_step(status: &str, current: u64, total: Option<u64>) -> Option<LayerStep> {
    Some(match status {
        "Pulling fs layer" | "Waiting" => LayerStep::Announced,
        // Moby's transfer service says the second, and means bytes as well.
        "Downloading" | "Pulling layer fs" => LayerStep::Downloading { current, total },
        "Verifying Checksum" | "Download complete" => LayerStep::Downloaded,
        "Extracting" => LayerStep::Extracting { current, total },
        "Pull complete" => LayerStep::Done,
        "Already exists" => LayerStep::Existing,
        status if status.starts_with("Retrying in") => LayerStep::Retrying,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failed_pulls_are_told_apart() {
        for (status, message, expected) in [
            (
                404,
                "manifest for 127.0.0.1:5000/x:latest not found: manifest unknown: manifest unknown",
                Some(ImageReason::NotFound),
            ),
            (
                404,
                "pull access denied for nope, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                Some(ImageReason::NotFound),
            ),
            (
                500,
                "Head \"http://127.0.0.1:5000/v2/p/manifests/latest\": no basic auth credentials",
                Some(ImageReason::Unauthorized),
            ),
            (
                500,
                "unauthorized: authentication required",
                Some(ImageReason::Unauthorized),
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit.",
                Some(ImageReason::RateLimited),
            ),
            (
                500,
                "Get \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com: no such host",
                Some(ImageReason::Network),
            ),
            (
                500,
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Some(ImageReason::Network),
            ),
            (
                500,
                "Get \"https://registry.example.com/v2/\": net/http: TLS handshake timeout",
                Some(ImageReason::Network),
            ),
            (
                500,
                "Get \"https://registry.example.com/v2/\": x509: certificate signed by unknown authority",
                Some(ImageReason::Tls),
            ),
            (
                500,
                "Get \"https://127.0.0.1:5000/v2/\": http: server gave HTTP response to HTTPS client",
                Some(ImageReason::Tls),
            ),
            (
                0,
                "no matching manifest for linux/amd64 in the manifest list entries",
                Some(ImageReason::Platform),
            ),
            (
                0,
                "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
                None,
            ),
            (500, "something else entirely", None),
        ] {
            assert_eq!(
                pull_failure(Some(status).filter(|it| *it > 0), message),
                expected,
                "for `{message}`"
            );
        }
    }

    #[test]
    fn terse_words_and_pages_of_proxies_have_a_reason_too() {
        for (status, message, expected) in [
            (500, "denied", Some(ImageReason::Unauthorized)),
            (
                500,
                "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<html>\"",
                Some(ImageReason::Unauthorized),
            ),
            (
                500,
                "error parsing HTTP 429 response body: invalid character '<' looking for beginning of value: \"<html>\"",
                Some(ImageReason::RateLimited),
            ),
            (
                404,
                "failed to resolve reference \"ghcr.io/a/b:1\": unexpected status: 403 Forbidden",
                Some(ImageReason::Unauthorized),
            ),
            (
                500,
                "received unexpected HTTP status: 503 Service Unavailable",
                Some(ImageReason::Network),
            ),
            (0, "unknown blob", Some(ImageReason::NotFound)),
            (
                500,
                "Head \"https://r.example.com/v2/a/manifests/latest\": stopped after 10 redirects",
                Some(ImageReason::Network),
            ),
            (
                0,
                "filesystem layer verification failed for digest sha256:a8c7d7b0",
                Some(ImageReason::Network),
            ),
            (
                500,
                "open /var/lib/docker/tmp/GetImageBlob1: permission denied",
                None,
            ),
            (
                500,
                "error parsing HTTP 418 response body: invalid character 'o' looking for beginning of value: \"oops\"",
                Some(ImageReason::NotARegistry),
            ),
            (500, "unknown: strange", Some(ImageReason::NotARegistry)),
            (500, "unsupported", Some(ImageReason::NotARegistry)),
        ] {
            assert_eq!(
                pull_failure(Some(status).filter(|it| *it > 0), message),
                expected,
                "for `{message}`"
            );
        }
    }

    #[test]
    fn what_is_no_registry_and_what_is_no_image_are_told_as_such() {
        let decode =
            "Head \"http://127.0.0.1:5997/v2/x/manifests/latest\": unable to decode token response";
        for (message, expected) in [
            (
                "error unmarshalling content: invalid character '<' looking for beginning of value".to_owned(),
                ImageReason::NotARegistry,
            ),
            (
                "Head \"http://127.0.0.1:5997/v2/x/manifests/latest\": no realm specified for token auth challenge".to_owned(),
                ImageReason::NotARegistry,
            ),
            (
                "Head \"http://127.0.0.1:5997/v2/x/manifests/latest\": authorization server did not include a token in the response".to_owned(),
                ImageReason::NotARegistry,
            ),
            (
                format!("{decode}: invalid character '<' looking for beginning of value"),
                ImageReason::NotARegistry,
            ),
            (
                format!("{decode}: invalid character 'g' looking for beginning of value"),
                ImageReason::NotARegistry,
            ),
            (
                "unsupported media type application/vnd.cncf.helm.config.v1+json".to_owned(),
                ImageReason::NotAnImage,
            ),
            (
                "invalid character 'g' looking for beginning of value".to_owned(),
                ImageReason::NotAnImage,
            ),
            ("missing signature key".to_owned(), ImageReason::NotAnImage),
            ("unexpected end of JSON input".to_owned(), ImageReason::NotAnImage),
            (
                "failed to register layer: Error processing tar file(exit status 1): unexpected EOF".to_owned(),
                ImageReason::NotAnImage,
            ),
        ] {
            assert_eq!(pull_failure(Some(500), &message), Some(expected), "for `{message}`");
        }
    }

    #[test]
    fn a_message_says_nothing_twice_in_a_row() {
        assert_eq!(
            without_echo("manifest for x:1 not found: manifest unknown: manifest unknown"),
            "manifest for x:1 not found: manifest unknown"
        );
        assert_eq!(
            without_echo("dial tcp: lookup a: no such host"),
            "dial tcp: lookup a: no such host"
        );
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_refusals() {
        let full = refusal(
            EngineCommand::Docker,
            "create the volume",
            Some(500),
            "mkdir /x: no space left on device",
        );
        assert!(matches!(full, Error::DiskFull { .. }));
        for layer in ["2556ea80-init", "1633f4d9"] {
            let message = format!(
                "chown /var/lib/docker/overlay2/{layer}/work/work: no such file or directory"
            );
            let command = EngineCommand::Docker;
            let overlay = refusal(command, "create the container", Some(500), &message);
            assert!(matches!(overlay, Error::DiskFull { .. }));
        }
        let other = refusal(
            EngineCommand::Docker,
            "create the volume",
            Some(500),
            "boom",
        );
        assert!(matches!(
            other,
            Error::EngineRefused {
                status: Some(500),
                ..
            }
        ));
    }

    #[test]
    fn a_container_that_does_not_run_is_not_the_engines_refusal() {
        for (message, state) in [
            ("Container 5e1f is not running", "stopped"),
            (
                "can only create exec sessions on running containers: container state improper",
                "stopped",
            ),
            (
                "OCI runtime exec failed: exec failed: cannot exec in a stopped container: unknown",
                "stopped",
            ),
            (
                "Container 5e1f is paused, unpause the container before exec",
                "paused",
            ),
        ] {
            let command = EngineCommand::Docker;
            let error = refusal(command, "start a shell", Some(409), message);
            assert_eq!(
                error.to_string(),
                format!("the session is not ready: it is {state}")
            );
        }
    }

    #[test]
    fn why_there_is_no_network_is_told_apart() {
        for (message, expected) in [
            (
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
                Some(NetworkReason::NoAddresses),
            ),
            (
                "all predefined address pools have been fully subnetted",
                Some(NetworkReason::NoAddresses),
            ),
            (
                "could not find free subnet from subnet pools",
                Some(NetworkReason::NoAddresses),
            ),
            (
                "cannot restrict inter-container communication: please ensure that br_netfilter kernel module is loaded",
                Some(NetworkReason::NotSeparated),
            ),
            (
                "Failed to Setup IP tables: Unable to enable SKIP DNAT rule:  (iptables failed: iptables --wait -t nat -I DOCKER -i br-1 -j RETURN: iptables: No chain/target/match by that name.",
                Some(NetworkReason::Firewall),
            ),
            ("network with name cove already exists", None),
        ] {
            let error = refusal(
                EngineCommand::Docker,
                "create the network",
                Some(500),
                message,
            );
            let reason = match error {
                Error::NetworkUnavailable { reason, .. } => Some(reason),
                _ => None,
            };
            assert_eq!(reason, expected, "for `{message}`");
        }
    }

    #[test]
    fn a_network_that_is_gone_is_not_a_program_that_is_missing() {
        for (message, expected) in [
            ("network 7b8612e960be not found", true),
            (
                "failed to set up container networking: network 7b8612e960be not found",
                true,
            ),
            (
                "unable to find network with name or ID cove-net-1: network not found",
                true,
            ),
            ("Error: No such network: cove-net-1", true),
            (
                "exec: \"/network\": executable file not found in $PATH",
                false,
            ),
            ("No such container: 7b8612e960be", false),
        ] {
            assert_eq!(says_no_such_network(message), expected, "for `{message}`");
        }
        assert!(says_network_in_use(
            "network cove id 44e9 has active endpoints"
        ));
        assert!(says_network_in_use(
            "\"cove\" has associated containers with it: network is being used"
        ));
        assert!(!says_network_in_use("network cove not found"));
    }

    #[test]
    fn api_versions_compare_as_numbers() {
        assert!(is_supported_api("1.41"));
        assert!(is_supported_api("1.100"));
        assert!(!is_supported_api("1.9"));
        assert!(!is_supported_api(""));
    }
}
