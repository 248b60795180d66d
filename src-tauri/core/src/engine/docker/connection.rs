//! The way to one engine: the places where engines listen, and the connection to the one that answered.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as ApiError;
use bollard::models::SystemVersion;
use futures_util::future;

use super::client_config;
use super::endpoints::{self, Place};
use super::errors::{connection_problem, translate};
use super::transport::client_of;
use super::wording;
use crate::engine::{
    Connected, EngineFacts, EngineId, EngineIdentity, EngineProblem, Found, NetworkKind, Places,
    PullDialect,
};
use crate::error::{EngineCommand, EngineReason, Error};

/// How long an engine may take to say what it is before it counts as not running.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// The places of this user's machine where engines that speak Docker's API may listen.
#[derive(Debug, Default)]
pub struct DockerPlaces {
    /// The only places to look at, when some were named.
    named: Vec<Place>,
}

/// An engine that speaks Docker's API, at one address. It never leads to another engine.
#[derive(Debug)]
pub struct DockerEngine {
    client: Docker,
    identity: EngineIdentity,
    command: EngineCommand,
}

impl DockerPlaces {
    /// Returns the places of this user's machine. Nothing is contacted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns these addresses, like `unix:///run/docker.sock`, and no others.
    #[must_use]
    pub fn at(addresses: &[&str]) -> Self {
        let places = addresses.iter();
        let places = places.map(|address| Place::configured(address, "chosen", None));
        Self {
            named: places.collect(),
        }
    }

    fn all(&self) -> Vec<Place> {
        if self.named.is_empty() {
            endpoints::all()
        } else {
            self.named.clone()
        }
    }
}

#[async_trait]
impl Places for DockerPlaces {
    fn is_named(&self) -> bool {
        matches!(&*self.all(), [only] if only.is_named)
    }

    async fn survey(&self) -> Vec<Found> {
        let looks = self.all().into_iter().map(async |place| Found {
            outcome: probe(&place).await,
            address: place.address,
            source: place.source,
        });
        future::join_all(looks).await
    }

    async fn first(&self) -> Result<Connected, Error> {
        let mut problems = Vec::new();
        for place in self.all() {
            match probe(&place).await {
                Ok(connected) => {
                    log::info!("engine {} at {}", connected.facts.name, place.address);
                    return Ok(connected);
                }
                Err(problem) => {
                    let is_last = place.is_unusable();
                    problems.push((place, problem));
                    if is_last {
                        break;
                    }
                }
            }
        }
        Err(unavailable(&problems))
    }

    async fn find(&self, engine: &EngineIdentity) -> Result<Connected, EngineProblem> {
        let mut places = self.all();
        if let Some(index) = places
            .iter()
            .position(|place| place.address == engine.address)
        {
            places.swap(0, index);
        } else if !self.is_named() && self.named.is_empty() {
            // The context that led to it may be another now.
            places.insert(0, Place::configured(&engine.address, "where it was", None));
        }
        let mut problem = None;
        for place in places {
            match probe(&place).await {
                Ok(connected) if connected.engine.identity().id == engine.id => {
                    return Ok(connected);
                }
                Ok(_) => {
                    problem.get_or_insert_with(another);
                }
                Err(other) => {
                    problem.get_or_insert(other);
                }
            }
        }
        Err(problem.unwrap_or_else(another))
    }
}

impl DockerEngine {
    /// Returns the client, which leads to this engine's address.
    pub(super) fn client(&self) -> Docker {
        self.client.clone()
    }

    pub(super) fn address(&self) -> &str {
        &self.identity.address
    }

    pub(super) fn known_as(&self) -> &EngineIdentity {
        &self.identity
    }

    /// Returns the engine's command line.
    pub(super) const fn command(&self) -> EngineCommand {
        self.command
    }

    /// Translates a failed call.
    pub(super) fn failed(&self, operation: &str, error: &ApiError) -> Error {
        translate(self.command, operation, error)
    }

    /// Says what the engine is, after it has shown that it is still the same one.
    pub(super) async fn ask_facts(&self) -> Result<EngineFacts, Error> {
        let unavailable = |problem: EngineProblem| Error::EngineUnavailable {
            reason: problem.reason,
            message: format!("{}: {}", self.address(), problem.message),
        };
        let version = version_of(&self.client).await.map_err(unavailable)?;
        let id = id_of(&self.client, &version, self.address()).await;
        let id = id.map_err(|error| match error {
            Unidentified::Silent => unavailable(silent()),
            Unidentified::Failed(error) => self.failed("ask the engine which one it is", &error),
        })?;
        if id == self.identity.id {
            Ok(facts(&version, self.address()))
        } else {
            let EngineProblem { reason, message } = another();
            Err(Error::EngineAway {
                name: self.identity.name.clone(),
                address: self.identity.address.clone(),
                reason,
                message,
            })
        }
    }
}

/// Connects to whatever engine listens at a place.
pub(super) async fn probe(place: &Place) -> Result<Connected, EngineProblem> {
    let (engine, facts) = connect_to(place)
        .await
        .map_err(|problem| place.judge(problem))?;
    Ok(Connected {
        engine: Arc::new(engine),
        facts,
    })
}

pub(super) async fn connect_to(
    place: &Place,
) -> Result<(DockerEngine, EngineFacts), EngineProblem> {
    let client = client_of(place)?;
    let client = match tokio::time::timeout(PROBE_LIMIT, client.negotiate_version()).await {
        Ok(client) => client.map_err(|error| connection_problem(&error))?,
        Err(_elapsed) => return Err(silent()),
    };
    let version = version_of(&client).await?;
    check_version(&version)?;
    let id = id_of(&client, &version, &place.address).await;
    let id = id.map_err(|error| match error {
        Unidentified::Silent => silent(),
        Unidentified::Failed(error) => connection_problem(&error),
    })?;
    let facts = facts(&version, &place.address);
    let identity = EngineIdentity {
        id,
        name: facts.name.clone(),
        address: place.address.clone(),
    };
    let engine = DockerEngine {
        client,
        identity,
        command: facts.command,
    };
    Ok((engine, facts))
}

/// Why it is not known which engine answers.
enum Unidentified {
    Silent,
    Failed(ApiError),
}

/// Returns which engine this is. Docker says an id that stays, but before version 23 all engines of a
/// machine say the same, so that the place of its data counts too. Podman says another id at every
/// question, and a proxy may forbid the question: then the address has to do.
async fn id_of(
    client: &Docker,
    version: &SystemVersion,
    address: &str,
) -> Result<EngineId, Unidentified> {
    if is_podman(version) {
        return Ok(EngineId::of(&["podman", &canonical(address)]));
    }
    let info = tokio::time::timeout(PROBE_LIMIT, client.info()).await;
    match info.map_err(|_elapsed| Unidentified::Silent)? {
        Ok(info) => match info.id.as_deref() {
            Some(id) if !id.is_empty() => {
                let data = info.docker_root_dir.as_deref().unwrap_or_default();
                Ok(EngineId::of(&["docker", id, data]))
            }
            Some(_) | None => Ok(EngineId::of(&["docker", &canonical(address)])),
        },
        Err(ApiError::DockerResponseServerError {
            status_code: 401 | 403 | 404 | 405,
            ..
        }) => Ok(EngineId::of(&["docker", &canonical(address)])),
        Err(error) => Err(Unidentified::Failed(error)),
    }
}

/// Returns the address that all links to it lead to.
fn canonical(address: &str) -> String {
    let path = address.strip_prefix("unix://").map(Path::new);
    let path = path.and_then(|path| path.canonicalize().ok());
    path.map_or_else(
        || address.trim_end_matches('/').to_owned(),
        |path| format!("unix://{}", path.display()),
    )
}

fn facts(version: &SystemVersion, address: &str) -> EngineFacts {
    let is_podman = is_podman(version);
    EngineFacts {
        name: if is_podman { "Podman" } else { "Docker" }.to_owned(),
        version: version.version.clone(),
        architecture: wording::kernel_architecture(version.arch.as_deref().unwrap_or_default()),
        environment: client_config::proxies_for(address),
        address: address.to_owned(),
        command: if is_podman {
            EngineCommand::Podman
        } else {
            EngineCommand::Docker
        },
        pull_dialect: if is_podman {
            PullDialect::AsTheyCome
        } else {
            PullDialect::AtOnce
        },
        // Podman lets the containers of a network reach each other, whatever it is told; Docker's addresses are
        // used up by some thirty networks.
        network_kind: if is_podman {
            NetworkKind::OfSession
        } else {
            NetworkKind::Shared
        },
    }
}

fn another() -> EngineProblem {
    EngineProblem {
        reason: EngineReason::NotRunning,
        message: "another engine answers there".to_owned(),
    }
}

async fn version_of(client: &Docker) -> Result<SystemVersion, EngineProblem> {
    match tokio::time::timeout(PROBE_LIMIT, client.version()).await {
        Ok(version) => version.map_err(|error| connection_problem(&error)),
        Err(_elapsed) => Err(silent()),
    }
}

fn silent() -> EngineProblem {
    EngineProblem {
        reason: EngineReason::NotRunning,
        message: format!("did not answer within {} s", PROBE_LIMIT.as_secs()),
    }
}

fn check_version(version: &SystemVersion) -> Result<(), EngineProblem> {
    let api = version.api_version.as_deref().unwrap_or_default();
    if !wording::is_supported_api(api) {
        return Err(EngineProblem {
            reason: EngineReason::TooOld,
            message: format!("speaks API {api}, and Cove needs {}", wording::OLDEST_API),
        });
    }
    match version.os.as_deref() {
        None | Some("linux") => Ok(()),
        Some(system) => Err(EngineProblem {
            reason: EngineReason::WrongSystem,
            message: format!("runs {system} containers"),
        }),
    }
}

fn is_podman(version: &SystemVersion) -> bool {
    let mut components = version.components.iter().flatten();
    components.any(|component| component.name.contains("Podman"))
}

/// Sums up why no place has an engine: the problem nearest to a working engine is told first.
fn unavailable(problems: &[(Place, EngineProblem)]) -> Error {
    let nearness = |reason: EngineReason| match reason {
        EngineReason::BadAddress
        | EngineReason::UnsupportedAddress
        | EngineReason::NoContext
        | EngineReason::ConfigUnreadable => 0,
        EngineReason::TooOld | EngineReason::WrongSystem | EngineReason::Tls => 1,
        EngineReason::NoPermission => 2,
        EngineReason::NotRunning | EngineReason::Unreachable | EngineReason::NotAnEngine => 3,
        EngineReason::NotInstalled => 4,
    };
    let nearest = problems
        .iter()
        .min_by_key(|(_, problem)| nearness(problem.reason));
    match nearest {
        Some((place, problem)) => Error::EngineUnavailable {
            reason: problem.reason,
            message: format!("{} ({}): {}", place.address, place.source, problem.message),
        },
        None => Error::EngineUnavailable {
            reason: EngineReason::NotInstalled,
            message: "nothing was found where engines listen".to_owned(),
        },
    }
}
