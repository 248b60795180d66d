//! Docker's API, spoken by Docker, Podman and their relatives. This is the only place that says
//! `bollard::`; what engines put in words is understood in `words`, where they live in `places`.

mod places;
#[cfg(test)]
mod recorded;
mod registry;
mod words;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, CreateImageInfo, HostConfig, HostConfigLogConfig, SystemVersion,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, DownloadFromContainerOptions, EventsOptions,
    ImportImageOptions, InspectContainerOptions, ListContainersOptions, ListImagesOptions,
    ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions, RenameContainerOptions,
    StartContainerOptions, StopContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use docker_credential::DockerCredential;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future};

use self::places::Place;
use super::{
    Archive, ContainerFacts, ContainerSpec, ContainerState, Engine, EngineFacts, EngineProblem,
    EngineView, Exec, ExecOutput, ExecSpec, ImageFacts, ImageView, Labels, LayerSize, LayerTelling,
    Owned, PullMessage,
};
use crate::error::{EngineReason, Error, ImageReason};
use crate::image::ImageReference;
use crate::labels;
use crate::session::SessionId;

/// How long an engine may take to say its version before it counts as not running.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long a credential helper may take before the pull goes on without credentials.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(10);
/// How long a registry may take to say what an image is made of. Nothing waits for it.
const MANIFEST_LIMIT: Duration = Duration::from_secs(20);
/// The client's own limit on a single answer, in seconds. It only ends what the run's own limit
/// does not see; a slow engine is not a broken one.
const ANSWER_LIMIT_S: u64 = 3_600;
/// How long a container gets between SIGTERM and SIGKILL, in seconds; the agent needs one at most.
const STOP_GRACE_S: i32 = 3;
/// Bytes read from an exec at once.
const EXEC_BUFFER: usize = 64 * 1024;

/// Events after which a session may be another than before, as Docker and Podman call them.
const CHANGES: [&str; 11] = [
    "create", "start", "die", "died", "pause", "unpause", "rename", "destroy", "remove", "stop",
    "kill",
];

/// Capabilities that no development work needs and that reach beyond the container.
const DROPPED_CAPABILITIES: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// An engine that speaks Docker's API. The first place that answers is used, until it stops
/// answering.
#[derive(Debug, Default)]
pub struct DockerEngine {
    /// The only place to look at, when one was named.
    place: Option<Place>,
    connected: Mutex<Option<Connected>>,
}

#[derive(Debug, Clone)]
struct Connected {
    client: Docker,
    address: String,
}

/// A place that was looked at.
struct Probe {
    place: Place,
    outcome: Result<(Docker, SystemVersion), EngineProblem>,
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
        let place = Place {
            address: address.to_owned(),
            source: "chosen".to_owned(),
        };
        Self {
            place: Some(place),
            connected: Mutex::default(),
        }
    }

    fn places(&self) -> Vec<Place> {
        self.place
            .clone()
            .map_or_else(places::all, |place| vec![place])
    }

    fn remembered(&self) -> Option<Connected> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, connected: Option<Connected>) {
        *self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = connected;
    }

    /// Returns the client of the connected engine, or connects.
    async fn client(&self) -> Result<Docker, Error> {
        match self.remembered() {
            Some(connected) => Ok(connected.client),
            None => self.connect_first().await.map(|(client, _)| client),
        }
    }

    async fn connect_first(&self) -> Result<(Docker, SystemVersion), Error> {
        let mut problems = Vec::new();
        for place in self.places() {
            let Probe { place, outcome } = probe(place).await;
            match outcome {
                Ok((client, version)) => {
                    log::info!("engine {} at {}", version_name(&version), place.address);
                    let connected = Connected {
                        client: client.clone(),
                        address: place.address,
                    };
                    self.remember(Some(connected));
                    return Ok((client, version));
                }
                Err(problem) => problems.push((place, problem)),
            }
        }
        Err(unavailable(&problems))
    }

    /// Translates a failed call, and forgets the connection when the engine is gone.
    fn failed(&self, operation: &str, error: &ApiError) -> Error {
        let error = translate(operation, error);
        if matches!(error, Error::EngineUnavailable { .. }) {
            self.remember(None);
        }
        error
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn connect(&self) -> Result<EngineFacts, Error> {
        // A connection that was good before may lead to an engine that has stopped since.
        let known = match self.remembered() {
            Some(connected) => version_of(&connected.client).await.ok(),
            None => None,
        };
        let version = match known {
            Some(version) => version,
            None => self.connect_first().await?.1,
        };
        Ok(EngineFacts {
            name: format!(
                "{} {}",
                version_name(&version),
                version.version.as_deref().unwrap_or_default()
            ),
            architecture: words::kernel_architecture(version.arch.as_deref().unwrap_or_default()),
            address: self
                .remembered()
                .map(|connected| connected.address)
                .unwrap_or_default(),
            layer_telling: if version_name(&version) == "Podman" {
                LayerTelling::AsTheyCome
            } else {
                LayerTelling::AtOnce
            },
        })
    }

    async fn survey(&self) -> Vec<EngineView> {
        let probes = future::join_all(self.places().into_iter().map(probe)).await;
        let current = self.remembered().map(|connected| connected.address);
        let selected = current
            .filter(|address| {
                probes
                    .iter()
                    .any(|probe| probe.outcome.is_ok() && probe.place.address == *address)
            })
            .or_else(|| {
                let first = probes.iter().find(|probe| probe.outcome.is_ok());
                first.map(|probe| probe.place.address.clone())
            });
        probes
            .into_iter()
            .map(|probe| view(probe, selected.as_deref()))
            .collect()
    }

    async fn image(&self, image: &ImageReference) -> Result<Option<ImageFacts>, Error> {
        match self.client().await?.inspect_image(&image.to_string()).await {
            Ok(found) => Ok(Some(ImageFacts {
                architecture: words::kernel_architecture(&found.architecture.unwrap_or_default()),
                user: found
                    .config
                    .and_then(|config| config.user)
                    .unwrap_or_default(),
            })),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed("inspect the image", &error)),
        }
    }

    async fn images(&self) -> Result<Vec<ImageView>, Error> {
        let images = self
            .client()
            .await?
            .list_images(None::<ListImagesOptions>)
            .await;
        let images = images.map_err(|error| self.failed("list the images", &error))?;
        let mut views: Vec<_> = images
            .into_iter()
            .flat_map(|image| {
                let size_bytes = u64::try_from(image.size).unwrap_or(0);
                image.repo_tags.into_iter().filter_map(move |tag| {
                    let reference: ImageReference = tag.parse().ok()?;
                    let offered = !reference.is_built_in();
                    offered.then(|| ImageView {
                        image_name: reference.familiar(),
                        size_bytes,
                    })
                })
            })
            .collect();
        views.sort_by(|a, b| a.image_name.cmp(&b.image_name));
        views.dedup_by(|a, b| a.image_name == b.image_name);
        Ok(views)
    }

    async fn pull(
        &self,
        image: &ImageReference,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error> {
        let client = self.client().await?;
        let credential = credential_for(image.registry().to_owned()).await;
        let credentials = credential.map(|(server, credential)| credentials(server, credential));
        let options = CreateImageOptions {
            from_image: Some(image.repository()),
            tag: Some(image.tag_or_digest().to_owned()),
            ..CreateImageOptions::default()
        };
        let name = image.to_string();
        let messages = client.create_image(Some(options), None, credentials);
        Ok(messages
            .map_err(move |error| pull_error(&name, &error))
            .try_filter_map(|message| future::ready(Ok(pull_message(message))))
            .boxed())
    }

    async fn layer_sizes(
        &self,
        image: &ImageReference,
        architecture: &str,
    ) -> Result<Vec<LayerSize>, Error> {
        let credential = credential_for(image.registry().to_owned()).await;
        let credential = credential.map(|(_, credential)| credential);
        let asked = registry::layer_sizes(image.as_reference(), architecture, credential);
        let answer = tokio::time::timeout(MANIFEST_LIMIT, asked)
            .await
            .map_err(|_elapsed| format!("no answer within {} s", MANIFEST_LIMIT.as_secs()))
            .and_then(|answer| answer.map_err(|error| error.to_string()));
        answer.map_err(|message| Error::ImageUnavailable {
            image: image.to_string(),
            reason: ImageReason::Network,
            message,
        })
    }

    async fn load_image(&self, archive: Bytes) -> Result<(), Error> {
        let client = self.client().await?;
        let options = ImportImageOptions {
            quiet: true,
            ..ImportImageOptions::default()
        };
        let loading = client.import_image(options, bollard::body_full(archive), None);
        let loaded: Result<Vec<_>, _> = loading.try_collect().await;
        loaded
            .map(drop)
            .map_err(|error| self.failed("load the built-in image", &error))
    }

    async fn volume(&self, name: &str) -> Result<Option<Labels>, Error> {
        match self.client().await?.inspect_volume(name).await {
            Ok(volume) => Ok(Some(volume.labels)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed("inspect the volume", &error)),
        }
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let created = self.client().await?.create_volume(request).await;
        let volume = created.map_err(|error| self.failed("create the volume", &error))?;
        // An engine answers with the volume of that name, also when it was there before.
        if labels
            .iter()
            .all(|(key, value)| volume.labels.get(key) == Some(value))
        {
            Ok(())
        } else {
            Err(Error::NameConflict(name.to_owned()))
        }
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        let client = self.client().await?;
        match client
            .remove_volume(name, None::<RemoveVolumeOptions>)
            .await
        {
            Ok(()) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(self.failed("remove the volume", &error)),
        }
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error> {
        let client = self.client().await?;
        match client
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
        {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                Ok(Some(ContainerFacts {
                    id: found.id.unwrap_or_default(),
                    name: bare_name(&found.name.unwrap_or_default()),
                    labels: found
                        .config
                        .and_then(|config| config.labels)
                        .unwrap_or_default(),
                    state: words::container_state(state.status.map(|s| s.to_string()).as_deref()),
                    exit_code: state.exit_code.unwrap_or_default(),
                }))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed("inspect the container", &error)),
        }
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let client = self.client().await?;
        let options = CreateContainerOptions {
            name: Some(spec.name.clone()),
            platform: String::new(),
        };
        match client
            .create_container(Some(options), container_body(spec))
            .await
        {
            Ok(created) => Ok(created.id),
            Err(ApiError::DockerResponseServerError {
                status_code: 409, ..
            }) => Err(Error::NameConflict(spec.name.clone())),
            Err(error) => Err(self.failed("create the container", &error)),
        }
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), Error> {
        let options = RenameContainerOptions {
            name: name.to_owned(),
        };
        let renamed = self
            .client()
            .await?
            .rename_container(container, options)
            .await;
        renamed.map_err(|error| self.failed("rename the container", &error))
    }

    async fn upload(&self, container: &str, folder: &str, archive: Archive) -> Result<(), Error> {
        let client = self.client().await?;
        let options = UploadToContainerOptions {
            path: folder.to_owned(),
            ..UploadToContainerOptions::default()
        };
        let body = bollard::body_try_stream(archive);
        let uploaded = client
            .upload_to_container(container, Some(options), body)
            .await;
        uploaded.map_err(|error| self.failed("copy files into the container", &error))
    }

    async fn download(
        &self,
        container: &str,
        path: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let client = self.client().await?;
        let options = DownloadFromContainerOptions {
            path: path.to_owned(),
        };
        let archive = client.download_from_container(container, Some(options));
        Ok(archive
            .map_err(|error| translate("copy files out of the container", &error))
            .boxed())
    }

    async fn start_container(&self, name: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let started = client
            .start_container(name, None::<StartContainerOptions>)
            .await;
        started.map_err(|error| self.failed("start the container", &error))
    }

    async fn stop_container(&self, name: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let options = StopContainerOptions {
            t: Some(STOP_GRACE_S),
            ..Default::default()
        };
        match client.stop_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(self.failed("stop the container", &error)),
        }
    }

    async fn unpause_container(&self, name: &str) -> Result<(), Error> {
        match self.client().await?.unpause_container(name).await {
            Ok(()) => Ok(()),
            // Engines differ in how they refuse what is not paused; what it is now decides.
            Err(error) => match self.container(name).await? {
                Some(container) if container.state == ContainerState::Running => Ok(()),
                Some(_) | None => Err(self.failed("unpause the container", &error)),
            },
        }
    }

    async fn pause_container(&self, name: &str) -> Result<(), Error> {
        let paused = self.client().await?.pause_container(name).await;
        paused.map_err(|error| self.failed("pause the container", &error))
    }

    async fn remove_container(&self, name: &str) -> Result<bool, Error> {
        let client = self.client().await?;
        let options = RemoveContainerOptions {
            force: true,
            ..RemoveContainerOptions::default()
        };
        match client.remove_container(name, Some(options)).await {
            Ok(()) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(self.failed("remove the container", &error)),
        }
    }

    async fn owned(&self, session: Option<SessionId>) -> Result<Owned, Error> {
        let client = self.client().await?;
        let label = match session {
            Some(id) => format!("{}={id}", labels::SESSION),
            None => labels::SESSION.to_owned(),
        };
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let containers = client.list_containers(Some(ListContainersOptions {
            all: true,
            filters: Some(filters.clone()),
            ..ListContainersOptions::default()
        }));
        let volumes = client.list_volumes(Some(ListVolumesOptions {
            filters: Some(filters),
        }));
        let (containers, volumes) = tokio::try_join!(containers, volumes)
            .map_err(|error| self.failed("list the sessions", &error))?;
        Ok(Owned {
            containers: containers
                .into_iter()
                .map(|container| ContainerFacts {
                    id: container.id.unwrap_or_default(),
                    name: bare_name(
                        container
                            .names
                            .unwrap_or_default()
                            .first()
                            .map_or("", |name| name),
                    ),
                    labels: container.labels.unwrap_or_default(),
                    state: words::container_state(
                        container.state.map(|s| s.to_string()).as_deref(),
                    ),
                    exit_code: 0,
                })
                .collect(),
            volumes: volumes
                .volumes
                .unwrap_or_default()
                .into_iter()
                .map(|volume| (volume.name, volume.labels))
                .collect(),
        })
    }

    async fn changes(&self) -> Result<BoxStream<'static, Result<(), Error>>, Error> {
        let client = self.client().await?;
        // Volumes' events carry no labels, so that nothing can be sorted out here; but execs, which every
        // look at a file makes, are.
        let filters = HashMap::from([
            ("type".to_owned(), words_of(&["container", "volume"])),
            ("event".to_owned(), words_of(&CHANGES)),
        ]);
        let options = EventsOptions {
            filters: Some(filters),
            ..EventsOptions::default()
        };
        let events = client.events(Some(options));
        Ok(events
            .map(|event| {
                event
                    .map(drop)
                    .map_err(|error| translate("follow the engine's events", &error))
            })
            .boxed())
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Exec, Error> {
        let client = self.client().await?;
        let run = async {
            let options = CreateExecOptions {
                attach_stdin: Some(true),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(spec.command.clone()),
                env: Some(spec.environment.clone()),
                user: Some(spec.user.clone()).filter(|user| !user.is_empty()),
                working_dir: Some(spec.directory.clone()),
                ..CreateExecOptions::default()
            };
            let exec = client.create_exec(container, options).await?;
            let start = StartExecOptions {
                output_capacity: Some(EXEC_BUFFER),
                ..Default::default()
            };
            client.start_exec(&exec.id, Some(start)).await
        };
        match run.await {
            Ok(StartExecResults::Attached { output, input }) => Ok(Exec {
                input,
                output: output
                    .map(|piece| match piece {
                        Ok(LogOutput::StdErr { message }) => Ok(ExecOutput::Err(message)),
                        Ok(
                            LogOutput::StdOut { message }
                            | LogOutput::StdIn { message }
                            | LogOutput::Console { message },
                        ) => Ok(ExecOutput::Out(message)),
                        Err(error) => Err(translate("read from the container", &error)),
                    })
                    .boxed(),
            }),
            Ok(StartExecResults::Detached) => Err(Error::Internal(
                "the engine detached an exec that was to be attached".into(),
            )),
            Err(error) => Err(self.failed("run the agent in the container", &error)),
        }
    }
}

fn words_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Takes off the slash that the API writes before a container's name.
fn bare_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let (volume, mount_point) = &spec.volume;
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        image: Some(spec.image.clone()),
        // The agent needs root to give a fresh volume to the image's user; that user runs the rest.
        user: Some("0:0".to_owned()),
        entrypoint: Some(spec.command.clone()),
        cmd: Some(Vec::new()),
        env: Some(spec.environment.clone()),
        working_dir: Some(mount_point.clone()),
        labels: Some(spec.labels.clone()),
        stop_signal: Some("SIGTERM".to_owned()),
        // The image's own check would test a command that does not run.
        healthcheck: Some(bollard::models::HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..Default::default()
        }),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{volume}:{mount_point}")]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            cap_drop: Some(DROPPED_CAPABILITIES.map(str::to_owned).to_vec()),
            pids_limit: i64::try_from(spec.pids_limit).ok(),
            nano_cpus: spec.cpu_limit.map(nano_cpus),
            memory: spec
                .memory_limit
                .and_then(|bytes| i64::try_from(bytes).ok()),
            init: Some(false),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "1m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Returns the engine's unit of processor time, billionths.
#[expect(
    clippy::cast_possible_truncation,
    reason = "settings allow 256 processors at most"
)]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

async fn probe(place: Place) -> Probe {
    let outcome = match connect_to(&place) {
        Ok(client) => match tokio::time::timeout(PROBE_LIMIT, client.negotiate_version()).await {
            Ok(Ok(client)) => match version_of(&client).await {
                Ok(version) => check_version(&version).map(|()| (client, version)),
                Err(problem) => Err(problem),
            },
            Ok(Err(error)) => Err(connection_problem(&error)),
            Err(_elapsed) => Err(silent()),
        },
        Err(error) => Err(connection_problem(&error)),
    };
    Probe { place, outcome }
}

fn connect_to(place: &Place) -> Result<Docker, ApiError> {
    let mut client = Docker::connect_with_host(&place.address)?;
    client.set_timeout(Duration::from_secs(ANSWER_LIMIT_S));
    Ok(client)
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
    if !words::is_supported_api(api) {
        return Err(EngineProblem {
            reason: EngineReason::TooOld,
            message: format!("speaks API {api}, and Cove needs {}", words::OLDEST_API),
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

fn version_name(version: &SystemVersion) -> &'static str {
    let components = version.components.iter().flatten();
    let podman = components
        .into_iter()
        .any(|component| component.name.contains("Podman"));
    if podman { "Podman" } else { "Docker" }
}

fn view(probe: Probe, selected: Option<&str>) -> EngineView {
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
        EngineReason::TooOld | EngineReason::WrongSystem => 0,
        EngineReason::NoPermission => 1,
        EngineReason::NotRunning => 2,
        EngineReason::NotInstalled => 3,
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

fn is_not_found(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

fn connection_problem(error: &ApiError) -> EngineProblem {
    let chain = cause_chain(error);
    let kind = io_kind(error);
    words::connection_problem(kind, &chain)
}

fn translate(operation: &str, error: &ApiError) -> Error {
    match error {
        ApiError::DockerResponseServerError {
            status_code,
            message,
        } => words::refusal(operation, *status_code, message),
        ApiError::DockerStreamError { error } => words::refusal(operation, 0, error),
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
            status: 0,
            message: cause_chain(error),
        },
    }
}

fn pull_error(image: &str, error: &ApiError) -> Error {
    let (status, message) = match error {
        ApiError::DockerResponseServerError {
            status_code,
            message,
        } => (*status_code, message),
        ApiError::DockerStreamError { error } => (0, error),
        _ => return translate("pull the image", error),
    };
    match words::pull_failure(status, message) {
        Some(reason) => Error::ImageUnavailable {
            image: image.to_owned(),
            reason,
            message: words::without_echo(message),
        },
        None => words::refusal("pull the image", status, message),
    }
}

fn pull_message(message: CreateImageInfo) -> Option<PullMessage> {
    let layer = message.id?;
    let detail = message.progress_detail.unwrap_or_default();
    let count = |bytes: Option<i64>| {
        bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0)
    };
    let step = words::layer_step(
        message.status.as_deref().unwrap_or_default(),
        count(detail.current),
        count(detail.total),
    )?;
    Some(PullMessage { layer, step })
}

/// Returns the user's own credential for a registry with the server that it is for, as `docker login`
/// and `podman login` keep them; none when there is none or its helper fails, and then the registry's
/// answer tells.
async fn credential_for(registry: String) -> Option<(String, DockerCredential)> {
    let lookup = tokio::task::spawn_blocking(move || {
        let server = if registry == "docker.io" {
            "https://index.docker.io/v1/".to_owned()
        } else {
            registry
        };
        let credential = docker_credential::get_credential(&server)
            .or_else(|_| docker_credential::get_podman_credential(&server))
            .ok()?;
        Some((server, credential))
    });
    if let Ok(Ok(credential)) = tokio::time::timeout(CREDENTIALS_LIMIT, lookup).await {
        credential
    } else {
        log::warn!("credentials could not be looked up; going on without");
        None
    }
}

/// Returns a credential as the engine wants it.
fn credentials(server: String, credential: DockerCredential) -> DockerCredentials {
    match credential {
        DockerCredential::UsernamePassword(username, password) => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
        DockerCredential::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
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
