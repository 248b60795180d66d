//! Where engines listen: `DOCKER_HOST`, the contexts of the `docker` command, and the sockets that
//! the usual engines are known to put somewhere. Nothing is contacted here.
//!
//! What the user's configuration names is read as `docker` reads it. Where `docker` would refuse it, or Cove cannot
//! follow it, the place says why, and no later place is taken in its stead.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::client_config::{self, ClientConfig};
use crate::engine::EngineProblem;
use crate::error::EngineReason;
use crate::own_file;

/// Where `docker` looks when nothing is configured.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// The port of an address that names none.
const DEFAULT_PORT: u16 = 2375;
/// Where `docker` looks when TLS and nothing else is configured.
const DEFAULT_TLS_ADDRESS: &str = "tcp://localhost:2376";

/// Bytes that the description of a context comes nowhere near.
const MOST_BYTES_OF_CONTEXT: u64 = 1_000_000;

/// A place where an engine may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The address, with its scheme: `unix://`, `npipe://`, `tcp://`; what was configured, when it is none.
    pub(super) address: String,
    /// Why it is looked at.
    pub(super) source: String,
    /// Whether the user's configuration names it; else it is where some engine usually is.
    pub(super) is_named: bool,
    /// How it is reached.
    pub(super) way: Way,
}

/// How a place is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By its address alone, unencrypted.
    Plain,
    /// Encrypted, over TCP.
    Tls(Tls),
    /// Not at all: what is configured is wrong, or more than Cove can do.
    Unusable(EngineProblem),
}

/// What an encrypted connection is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// The authorities that may vouch for the engine; `None` for those of this machine.
    pub(super) authority: Option<PathBuf>,
    /// What the engine knows the user by: certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// Whether the engine has to prove who it is.
    pub(super) verify: bool,
}

impl Place {
    /// Returns the place at an address that the configuration names, or why there is none.
    pub(super) fn configured(address: &str, source: &str, tls: Option<Tls>) -> Self {
        let source = source.to_owned();
        match normalise(address) {
            Ok(address) => {
                let way = match tls {
                    // A socket is not encrypted, whatever else is configured.
                    Some(tls) if address.starts_with("tcp://") => Way::Tls(tls),
                    Some(_) | None => Way::Plain,
                };
                Self {
                    address,
                    source,
                    is_named: true,
                    way,
                }
            }
            Err(problem) => Self {
                address: address.to_owned(),
                source,
                is_named: true,
                way: Way::Unusable(problem),
            },
        }
    }

    /// Returns a place that cannot be reached because of how it is configured.
    fn unusable(address: String, source: String, reason: EngineReason, message: String) -> Self {
        Self {
            address,
            source,
            is_named: true,
            way: Way::Unusable(EngineProblem { reason, message }),
        }
    }

    /// Returns a problem of connecting as it is to be told here. An address that the user's configuration names may be
    /// wrong itself, so that to install or to start an engine need not help.
    pub(super) fn judge(&self, problem: EngineProblem) -> EngineProblem {
        let is_remote = self.address.starts_with("tcp://");
        let reason = match problem.reason {
            EngineReason::NotInstalled if self.is_named => EngineReason::Unreachable,
            EngineReason::NotRunning if is_remote => EngineReason::Unreachable,
            reason => reason,
        };
        EngineProblem { reason, ..problem }
    }

    /// Returns whether this place is what is meant, and wrong: nothing else may be taken for it.
    pub(super) fn is_unusable(&self) -> bool {
        matches!(self.way, Way::Unusable(_))
    }
}

/// Returns the places to look at, best first. `DOCKER_HOST` is an explicit wish: when it is set,
/// no other place is looked at.
pub(super) fn all() -> Vec<Place> {
    from(&client_config::variable, client_config::home().as_deref())
}

pub(super) fn from(
    environment: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Vec<Place> {
    let config = client_config::folder(environment, home);
    let tls = configured_tls(environment, config.as_deref());
    let wish = environment("DOCKER_HOST");
    if let Some(address) = wish.as_deref().map(str::trim).filter(|it| !it.is_empty()) {
        return vec![Place::configured(address, "DOCKER_HOST", tls)];
    }
    let mut places: Vec<Place> = Vec::new();
    let mut problem = None;
    // Blanks are no address, and yet a wish: for what `docker` does without any context.
    if let Some(config) = config.filter(|_| wish.is_none()) {
        let chosen = match environment("DOCKER_CONTEXT") {
            Some(name) => Some(name),
            None => match ClientConfig::read(&config) {
                Ok(content) => content.current_context(),
                Err(unreadable) => {
                    // `docker` goes on without it, so that it is told and decides nothing.
                    problem = Some(Place::unusable(
                        config.join("config.json").display().to_string(),
                        "docker configuration".to_owned(),
                        EngineReason::ConfigUnreadable,
                        unreadable.to_string(),
                    ));
                    None
                }
            },
        };
        places.extend(
            chosen
                .filter(|name| name != "default")
                .map(|name| context(&config, &name)),
        );
    }
    if let (true, Some(tls)) = (places.is_empty(), tls) {
        return vec![Place::configured(
            DEFAULT_TLS_ADDRESS,
            "DOCKER_TLS_VERIFY",
            Some(tls),
        )];
    }
    places = known(places, environment, home);
    places.extend(problem);
    places
}

/// Adds the sockets and pipes of the usual engines.
fn known(
    mut places: Vec<Place>,
    environment: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Vec<Place> {
    let mut add = |address: String, source: &str| {
        if !places.iter().any(|place| place.address == address) {
            places.push(Place {
                address,
                source: source.to_owned(),
                is_named: false,
                way: Way::Plain,
            });
        }
    };
    if cfg!(windows) {
        add(
            "npipe:////./pipe/docker_engine".to_owned(),
            "Docker Desktop",
        );
        add(
            "npipe:////./pipe/podman-machine-default".to_owned(),
            "Podman",
        );
        return places;
    }
    add(DEFAULT_SOCKET.to_owned(), "default socket");
    let mut socket = |directory: &Path, path: &str, source: &str| {
        let path = directory.join(path);
        // A socket that nobody ever made says nothing about what is installed.
        if path.exists() {
            add(format!("unix://{}", path.display()), source);
        }
    };
    if let Some(home) = home {
        socket(home, ".docker/run/docker.sock", "Docker Desktop");
        socket(home, ".docker/desktop/docker.sock", "Docker Desktop");
        socket(home, ".orbstack/run/docker.sock", "OrbStack");
        socket(home, ".colima/default/docker.sock", "Colima");
        socket(home, ".rd/docker.sock", "Rancher Desktop");
        socket(
            home,
            ".local/share/containers/podman/machine/podman.sock",
            "Podman machine",
        );
    }
    if let Some(runtime) = environment("XDG_RUNTIME_DIR") {
        socket(Path::new(&runtime), "docker.sock", "rootless Docker");
        socket(Path::new(&runtime), "podman/podman.sock", "Podman");
    }
    socket(Path::new("/run/podman"), "podman.sock", "Podman as root");
    places
}

/// Returns what the environment says of TLS. The client's certificate and key are optional, as for `docker`.
fn configured_tls(
    environment: &dyn Fn(&str) -> Option<String>,
    config: Option<&Path>,
) -> Option<Tls> {
    let verify = environment("DOCKER_TLS_VERIFY").is_some();
    if !verify && environment("DOCKER_TLS").is_none() {
        return None;
    }
    let folder = environment("DOCKER_CERT_PATH")
        .map(PathBuf::from)
        .or_else(|| config.map(Path::to_owned))?;
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    Some(Tls {
        authority: Some(folder.join("ca.pem")),
        identity: (certificate.exists() && key.exists()).then_some((certificate, key)),
        verify,
    })
}

/// Reads an address as `docker` reads it, and returns it whole: with its scheme, a host and a port.
fn normalise(text: &str) -> Result<String, EngineProblem> {
    let wrong = |message: String| EngineProblem {
        reason: EngineReason::BadAddress,
        message,
    };
    let beyond = |message: &str| EngineProblem {
        reason: EngineReason::UnsupportedAddress,
        message: message.to_owned(),
    };
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if text.starts_with(['/', '.', '~', '\\']) || text.starts_with("unix:") => {
            let path = text.strip_prefix("unix:").unwrap_or(text);
            return Err(wrong(format!(
                "a socket is written with its scheme: `unix://{path}`"
            )));
        }
        None => ("tcp", text),
    };
    match scheme {
        "tcp" => tcp_address(rest),
        "unix" if cfg!(windows) => Err(beyond("Unix sockets cannot be used on Windows")),
        "unix" if rest.is_empty() => Ok(DEFAULT_SOCKET.to_owned()),
        "unix" => Ok(format!("unix://{rest}")),
        "npipe" if cfg!(windows) => Ok(format!("npipe://{rest}")),
        "npipe" => Err(beyond("named pipes exist on Windows only")),
        "ssh" => Err(beyond("engines over SSH are not supported yet")),
        "fd" => Err(beyond(
            "`fd://` says where an engine listens, and not how it is reached",
        )),
        "http" | "https" => Err(wrong(format!(
            "an engine's address over the network is written `tcp://{rest}`"
        ))),
        scheme => Err(wrong(format!(
            "`{scheme}://` is not one of `unix://`, `tcp://`, `npipe://`"
        ))),
    }
}

fn tcp_address(rest: &str) -> Result<String, EngineProblem> {
    let wrong = |message: String| EngineProblem {
        reason: EngineReason::BadAddress,
        message,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(EngineProblem {
            reason: EngineReason::UnsupportedAddress,
            message: format!("`tcp://{rest}` has a path, and Cove needs an engine at the root"),
        });
    }
    // Outside of brackets a colon is before a port.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if (bare.contains(':') && !host.starts_with('['))
        || bare
            .chars()
            .any(|c| c.is_whitespace() || "?#@\\".contains(c))
    {
        return Err(wrong(format!("`{rest}` is not a host and a port")));
    }
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => port
            .parse::<u16>()
            .map_err(|_| wrong(format!("`{port}` is not a port")))?,
        None => DEFAULT_PORT,
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(format!("tcp://{host}:{port}"))
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skips_verification: bool,
}

/// Returns the place of a context. Contexts are stored in folders named by a digest, so each one's own name is read.
fn context(config: &Path, name: &str) -> Place {
    let source = format!("context {name}");
    let unusable = |reason, message: String| {
        Place::unusable(
            config.join("contexts").display().to_string(),
            source.clone(),
            reason,
            message,
        )
    };
    let mut unreadable = None;
    let folders = std::fs::read_dir(config.join("contexts/meta"));
    for folder in folders.into_iter().flatten().flatten() {
        let path = folder.path().join("meta.json");
        let meta = own_file::read_at_most(&path, MOST_BYTES_OF_CONTEXT)
            .map_err(|error| error.to_string())
            .and_then(|text| text.ok_or_else(|| "it is too large".to_owned()))
            .and_then(|text| {
                serde_json::from_slice::<ContextMeta>(&text).map_err(|error| error.to_string())
            });
        match meta {
            Ok(meta) if meta.name == name => {
                let Some(endpoint) = meta.endpoints.docker.filter(|it| !it.host.is_empty()) else {
                    let message = format!("the context `{name}` names no engine");
                    return unusable(EngineReason::NoContext, message);
                };
                let material = config
                    .join("contexts/tls")
                    .join(folder.file_name())
                    .join("docker");
                let tls = context_tls(&material, endpoint.skips_verification);
                // A context may say `http://`, which is TCP.
                let host = endpoint.host.strip_prefix("http://").map_or_else(
                    || endpoint.host.clone(),
                    |address| format!("tcp://{address}"),
                );
                return Place::configured(&host, &source, tls);
            }
            Ok(_) => {}
            Err(problem) => {
                unreadable.get_or_insert(format!("`{}` cannot be read: {problem}", path.display()));
            }
        }
    }
    match unreadable {
        Some(message) => unusable(
            EngineReason::ConfigUnreadable,
            format!("the context `{name}` was not found, and {message}"),
        ),
        None => unusable(
            EngineReason::NoContext,
            format!("there is no context `{name}`"),
        ),
    }
}

/// Returns what a context keeps for TLS; without any of it, its engine is not encrypted.
fn context_tls(material: &Path, skips_verification: bool) -> Option<Tls> {
    let file = |name: &str| Some(material.join(name)).filter(|path| path.exists());
    let (authority, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    if authority.is_none() && certificate.is_none() && key.is_none() && !skips_verification {
        return None;
    }
    Some(Tls {
        authority,
        identity: certificate.zip(key),
        verify: !skips_verification,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)], home: Option<&Path>) -> Vec<Place> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .filter(|value| !value.is_empty())
        };
        from(&environment, home)
    }

    fn reason(place: &Place) -> Option<EngineReason> {
        match &place.way {
            Way::Unusable(problem) => Some(problem.reason),
            Way::Plain | Way::Tls(_) => None,
        }
    }

    fn home_with(config: &str, contexts: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for (folder, meta) in contexts {
            let folder = home.path().join(".docker/contexts/meta").join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("meta.json"), meta).unwrap();
        }
        std::fs::create_dir_all(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
        home
    }

    #[cfg(unix)]
    #[test]
    fn docker_host_is_the_only_place_when_it_is_set_and_is_read_as_docker_reads_it() {
        let bad = Err(EngineReason::BadAddress);
        let beyond = Err(EngineReason::UnsupportedAddress);
        for (written, expected) in [
            ("tcp://127.0.0.1:1", Ok("tcp://127.0.0.1:1")),
            ("127.0.0.1:2999", Ok("tcp://127.0.0.1:2999")),
            ("  tcp://127.0.0.1:2999  ", Ok("tcp://127.0.0.1:2999")),
            ("tcp://", Ok("tcp://localhost:2375")),
            ("localhost", Ok("tcp://localhost:2375")),
            (":2999", Ok("tcp://localhost:2999")),
            ("tcp://[::1]:2999", Ok("tcp://[::1]:2999")),
            ("tcp://[::1]", Ok("tcp://[::1]:2375")),
            ("tcp://10.0.0.1:", Ok("tcp://10.0.0.1:2375")),
            ("unix://", Ok("unix:///var/run/docker.sock")),
            ("unix:///run/x.sock", Ok("unix:///run/x.sock")),
            ("unix://rel.sock", Ok("unix://rel.sock")),
            ("/var/run/docker.sock", bad),
            ("~/docker.sock", bad),
            ("unix:/var/run/docker.sock", bad),
            ("tcp://127.0.0.1:port", bad),
            ("tcp://::1:2375", bad),
            ("tcp://a b:1", bad),
            ("http://127.0.0.1:2999", bad),
            ("https://127.0.0.1:2999", bad),
            ("foo://x", bad),
            ("ssh://nobody@127.0.0.1", beyond),
            ("npipe:////./pipe/docker_engine", beyond),
            ("fd://", beyond),
            ("tcp://127.0.0.1:2999/path", beyond),
        ] {
            let places = places(&[("DOCKER_HOST", written)], None);
            let [place] = &places[..] else {
                panic!("{written}: {places:?}")
            };
            let outcome = reason(place).map_or(Ok(place.address.as_str()), Err);
            assert_eq!(outcome, expected, "{written}");
            assert_eq!(place.source, "DOCKER_HOST");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_bare_path_is_answered_with_how_it_is_written() {
        let places = places(&[("DOCKER_HOST", "/run/docker.sock")], None);
        assert_eq!(
            places.first().map(|place| &place.way),
            Some(&Way::Unusable(EngineProblem {
                reason: EngineReason::BadAddress,
                message: "a socket is written with its scheme: `unix:///run/docker.sock`"
                    .to_owned(),
            }))
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_current_context_comes_first_and_existing_sockets_follow() {
        let home = home_with(
            r#"{"currentContext":"lima"}"#,
            &[(
                "0123",
                r#"{"Name":"lima","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///lima.sock"}}}"#,
            )],
        );
        std::fs::create_dir_all(home.path().join(".rd")).unwrap();
        std::fs::write(home.path().join(".rd/docker.sock"), "").unwrap();

        let found = places(&[], Some(home.path()));
        let sources: Vec<_> = found.iter().map(|place| place.source.as_str()).collect();
        assert_eq!(
            sources.get(..3),
            Some(&["context lima", "default socket", "Rancher Desktop"][..])
        );
        assert_eq!(
            found.first().map(|place| place.address.as_str()),
            Some("unix:///lima.sock")
        );
        // `DOCKER_HOST` beats a context, and blanks in it leave only what `docker` does without one.
        let blanks = places(&[("DOCKER_HOST", "  ")], Some(home.path()));
        assert_eq!(
            blanks.first().map(|place| place.source.as_str()),
            Some("default socket")
        );
        let default = places(&[("DOCKER_CONTEXT", "default")], Some(home.path()));
        assert_eq!(
            default.first().map(|place| place.source.as_str()),
            Some("default socket")
        );
    }

    #[test]
    fn a_context_that_cannot_be_used_says_why_and_comes_first() {
        let ssh = r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://me@far"}}}"#;
        let none = r#"{"Name":"none","Endpoints":{}}"#;
        let home = home_with("{}", &[("1", ssh), ("2", none)]);
        for (name, expected) in [
            ("far", EngineReason::UnsupportedAddress),
            ("none", EngineReason::NoContext),
            ("nope", EngineReason::NoContext),
        ] {
            let found = places(&[("DOCKER_CONTEXT", name)], Some(home.path()));
            let first = found.first().unwrap();
            assert_eq!(reason(first), Some(expected), "{first:?}");
            assert_eq!(first.source, format!("context {name}"));
        }
        let broken = home_with("{}", &[("1", "{")]);
        let found = places(&[("DOCKER_CONTEXT", "lima")], Some(broken.path()));
        assert_eq!(
            reason(found.first().unwrap()),
            Some(EngineReason::ConfigUnreadable)
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_configuration_that_cannot_be_read_is_told_and_decides_nothing() {
        let home = home_with("{", &[]);
        let found = places(&[], Some(home.path()));
        assert_eq!(reason(found.first().unwrap()), None);
        let last = found.last().unwrap();
        assert_eq!(reason(last), Some(EngineReason::ConfigUnreadable));
        assert!(last.address.ends_with("config.json"), "{last:?}");
    }

    #[cfg(unix)]
    #[test]
    fn tls_is_what_docker_makes_of_its_variables_and_of_a_contexts_material() {
        let home = home_with(
            r#"{"currentContext":"far"}"#,
            &[(
                "ab",
                r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#,
            )],
        );
        let certificates = home.path().join("certificates");
        std::fs::create_dir_all(&certificates).unwrap();
        let folder = certificates.display().to_string();
        let check = |variables: &[(&str, &str)]| {
            let found = places(variables, Some(home.path()));
            let first = found.into_iter().next().unwrap();
            match first.way {
                Way::Tls(tls) => (first.address, Some(tls)),
                Way::Plain | Way::Unusable(_) => (first.address, None),
            }
        };
        let authority = Some(certificates.join("ca.pem"));
        let tls = |verify| Tls {
            authority: authority.clone(),
            identity: None,
            verify,
        };
        let host = ("DOCKER_HOST", "tcp://far:1");
        let path = ("DOCKER_CERT_PATH", folder.as_str());
        let far = || "tcp://far:1".to_owned();
        assert_eq!(check(&[host, path]), (far(), None));
        assert_eq!(
            check(&[host, path, ("DOCKER_TLS_VERIFY", "")]),
            (far(), None)
        );
        assert_eq!(
            check(&[host, path, ("DOCKER_TLS_VERIFY", "0")]),
            (far(), Some(tls(true)))
        );
        assert_eq!(
            check(&[host, path, ("DOCKER_TLS", "1")]),
            (far(), Some(tls(false)))
        );
        let socket = ("DOCKER_HOST", "unix:///x.sock");
        assert_eq!(
            check(&[socket, path, ("DOCKER_TLS_VERIFY", "1")]),
            ("unix:///x.sock".to_owned(), None)
        );
        let default = ("DOCKER_CONTEXT", "default");
        assert_eq!(
            check(&[default, path, ("DOCKER_TLS_VERIFY", "1")]),
            ("tcp://localhost:2376".to_owned(), Some(tls(true)))
        );
        // A context has its own material, and the variables say nothing of it.
        let context = || "tcp://far:2376".to_owned();
        assert_eq!(check(&[("DOCKER_TLS_VERIFY", "1")]), (context(), None));
        let material = home.path().join(".docker/contexts/tls/ab/docker");
        std::fs::create_dir_all(&material).unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(material.join(name), "").unwrap();
        }
        let own = Tls {
            authority: Some(material.join("ca.pem")),
            identity: Some((material.join("cert.pem"), material.join("key.pem"))),
            verify: true,
        };
        assert_eq!(check(&[]), (context(), Some(own)));
    }
}
