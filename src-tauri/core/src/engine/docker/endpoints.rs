//! Where engines listen: `DOCKER_HOST`, the contexts of the `docker` command, and the sockets that
//! the usual engines are known to put somewhere. Nothing is contacted here.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A place where an engine may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The address, with its scheme: `unix://`, `npipe://`, `tcp://`.
    pub(super) address: String,
    /// Why it is looked at.
    pub(super) source: String,
}

/// Returns the places to look at, best first. `DOCKER_HOST` is an explicit wish: when it is set,
/// no other place is looked at.
pub(super) fn all() -> Vec<Place> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    from(&environment, home().as_deref())
}

fn from(environment: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Vec<Place> {
    if let Some(address) = environment("DOCKER_HOST") {
        return vec![Place {
            address,
            source: "DOCKER_HOST".to_owned(),
        }];
    }
    let mut places: Vec<Place> = Vec::new();
    let mut add = |address: String, source: String| {
        if !places.iter().any(|place| place.address == address) {
            places.push(Place { address, source });
        }
    };
    if let Some(home) = home {
        let config =
            environment("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
        if let Some((name, address)) = current_context(&config, environment("DOCKER_CONTEXT")) {
            add(address, format!("context {name}"));
        }
    }
    if cfg!(windows) {
        add(
            "npipe:////./pipe/docker_engine".to_owned(),
            "Docker Desktop".to_owned(),
        );
        add(
            "npipe:////./pipe/podman-machine-default".to_owned(),
            "Podman".to_owned(),
        );
        return places;
    }
    add(
        "unix:///var/run/docker.sock".to_owned(),
        "default socket".to_owned(),
    );
    let mut socket = |directory: &Path, path: &str, source: &str| {
        let path = directory.join(path);
        // A socket that nobody ever made says nothing about what is installed.
        if path.exists() {
            add(format!("unix://{}", path.display()), source.to_owned());
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

#[derive(Deserialize)]
struct ClientConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: String,
}

/// Returns the `docker` command's current context and its address, when it has one of its own.
/// Contexts are stored in folders named by a digest, so each one's own name is read.
fn current_context(config: &Path, chosen: Option<String>) -> Option<(String, String)> {
    let name = chosen.or_else(|| {
        let text = std::fs::read_to_string(config.join("config.json")).ok()?;
        serde_json::from_str::<ClientConfig>(&text)
            .ok()?
            .current_context
    })?;
    let contexts = std::fs::read_dir(config.join("contexts/meta")).ok()?;
    contexts.flatten().find_map(|folder| {
        let text = std::fs::read_to_string(folder.path().join("meta.json")).ok()?;
        let meta: ContextMeta = serde_json::from_str(&text).ok()?;
        (meta.name == name).then_some((meta.name, meta.endpoints.docker?.host))
    })
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], home: Option<&Path>) -> Vec<(String, String)> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let places = from(&environment, home);
        places
            .into_iter()
            .map(|place| (place.source, place.address))
            .collect()
    }

    #[test]
    fn docker_host_is_the_only_place_when_it_is_set() {
        let places = check(&[("DOCKER_HOST", "tcp://127.0.0.1:1")], None);
        assert_eq!(
            places,
            [("DOCKER_HOST".to_owned(), "tcp://127.0.0.1:1".to_owned())]
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_current_context_comes_first_and_existing_sockets_follow() {
        let home = tempfile::tempdir().unwrap();
        let meta = home.path().join(".docker/contexts/meta/0123");
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            home.path().join(".docker/config.json"),
            r#"{"currentContext":"lima"}"#,
        )
        .unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"lima","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///lima.sock"}}}"#,
        )
        .unwrap();
        std::fs::create_dir_all(home.path().join(".rd")).unwrap();
        std::fs::write(home.path().join(".rd/docker.sock"), "").unwrap();

        let places = check(&[], Some(home.path()));
        let sources: Vec<_> = places.iter().map(|(source, _)| source.as_str()).collect();
        assert_eq!(
            sources.get(..3),
            Some(&["context lima", "default socket", "Rancher Desktop"][..])
        );
        assert_eq!(
            places.first().map(|(_, address)| address.as_str()),
            Some("unix:///lima.sock")
        );
    }
}
