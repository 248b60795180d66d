//! Finding an engine that answers, and keeping the connection to it.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as ApiError;
use bollard::models::SystemVersion;

use super::endpoints::{self, Place};
use super::errors::{connection_problem, translate};
use super::transport::client_of;
use super::wording;
use crate::engine::{EngineProblem, EngineView};
use crate::error::{EngineCommand, EngineReason, Error};
use parking_lot::Mutex;

/// How long an engine may take to say its version before it counts as not running.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// An engine that speaks Docker's API. The first place that answers is used, until it stops
/// answering.
#[derive(Debug, Default)]
pub struct DockerEngine {
    /// The only place to look at, when one was named.
    place: Option<Place>,
    connected: Mutex<Option<Connected>>,
}

#[derive(Debug, Clone)]
pub(super) struct Connected {
    pub(super) client: Docker,
    pub(super) address: String,
    pub(super) command: EngineCommand,
}

/// A place that was looked at.
pub(super) struct Probe {
    pub(super) place: Place,
    pub(super) outcome: Result<(Docker, SystemVersion), EngineProblem>,
}

impl DockerEngine {
    /// Returns the engine of this user's machine. Nothing is contacted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the engine at an address like `unix:///run/docker.sock`, and at no other.
    #[must_use]
    pub fn at(address: &str) -> Self {
        let place = Place::configured(address, "chosen", None);
        Self {
            place: Some(place),
            connected: Mutex::default(),
        }
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.place
            .clone()
            .map_or_else(endpoints::all, |place| vec![place])
    }

    pub(super) fn remembered(&self) -> Option<Connected> {
        self.connected.lock().clone()
    }

    fn remember(&self, connected: Option<Connected>) {
        *self.connected.lock() = connected;
    }

    /// Returns the client of the connected engine, or connects.
    pub(super) async fn client(&self) -> Result<Docker, Error> {
        match self.remembered() {
            Some(connected) => Ok(connected.client),
            None => self.connect_first().await.map(|(client, _)| client),
        }
    }

    pub(super) async fn connect_first(&self) -> Result<(Docker, SystemVersion), Error> {
        let mut problems = Vec::new();
        for place in self.places() {
            let Probe { place, outcome } = probe(place).await;
            match outcome {
                Ok((client, version)) => {
                    log::info!("engine {} at {}", version_name(&version), place.address);
                    let connected = Connected {
                        client: client.clone(),
                        address: place.address,
                        command: command_of(&version),
                    };
                    self.remember(Some(connected));
                    return Ok((client, version));
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

    /// Returns the command line of the connected engine.
    pub(super) fn command(&self) -> EngineCommand {
        self.remembered()
            .map_or_else(EngineCommand::default, |connected| connected.command)
    }

    /// Translates a failed call, and forgets the connection when the engine is gone.
    pub(super) fn failed(&self, operation: &str, error: &ApiError) -> Error {
        let error = translate(self.command(), operation, error);
        if matches!(error, Error::EngineUnavailable { .. }) {
            self.remember(None);
        }
        error
    }
}

pub(super) async fn probe(place: Place) -> Probe {
    let outcome = match client_of(&place) {
        Ok(client) => match tokio::time::timeout(PROBE_LIMIT, client.negotiate_version()).await {
            Ok(Ok(client)) => match version_of(&client).await {
                Ok(version) => check_version(&version).map(|()| (client, version)),
                Err(problem) => Err(problem),
            },
            Ok(Err(error)) => Err(connection_problem(&error)),
            Err(_elapsed) => Err(silent()),
        },
        Err(problem) => Err(problem),
    };
    let outcome = outcome.map_err(|problem| place.judge(problem));
    Probe { place, outcome }
}

pub(super) async fn version_of(client: &Docker) -> Result<SystemVersion, EngineProblem> {
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

pub(super) fn version_name(version: &SystemVersion) -> &'static str {
    let components = version.components.iter().flatten();
    let podman = components
        .into_iter()
        .any(|component| component.name.contains("Podman"));
    if podman { "Podman" } else { "Docker" }
}

/// Returns the command line that belongs to an engine.
pub(super) fn command_of(version: &SystemVersion) -> EngineCommand {
    match version_name(version) {
        "Podman" => EngineCommand::Podman,
        _ => EngineCommand::Docker,
    }
}

pub(super) fn view(probe: Probe, selected: Option<&str>) -> EngineView {
    let Probe { place, outcome } = probe;
    let selected = selected == Some(place.address.as_str());
    match outcome {
        Ok((_, version)) => EngineView {
            name: version_name(&version).to_owned(),
            address: place.address,
            source: place.source,
            version: version.version,
            selected,
            problem: None,
        },
        Err(problem) => EngineView {
            name: place.source.clone(),
            address: place.address,
            source: place.source,
            version: None,
            selected,
            problem: Some(problem),
        },
    }
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
