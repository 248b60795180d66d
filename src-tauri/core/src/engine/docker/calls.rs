//! What is asked of an engine, as Docker's API has it: one call or a few for each method of [`Engine`].

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, CreateImageInfo, HostConfig, HostConfigLogConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, DownloadFromContainerOptions, ImportImageOptions,
    RemoveContainerOptions, RemoveVolumeOptions, RenameContainerOptions, StartContainerOptions,
    StopContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, future};
use serde_json::Value;

use super::connection::DockerEngine;
use super::credentials::{Lender, for_engine};
use super::errors::{is_not_found, pull_error, translate};
use super::{answers, frames, measured, registry, wording};
use crate::engine::{
    Archive, Change, ContainerFacts, ContainerNetwork, ContainerSpec, ContainerState,
    DEFAULT_NETWORKS, Engine, EngineCapacity, EngineFacts, EngineIdentity, Exec, ExecOutput,
    ExecSpec, ImageFacts, ImageView, Labels, LayerSize, Lent, NETWORK_PREFIX, NetworkFacts,
    NetworkKind, Owned, PullMessage, Waits,
};
use crate::error::{EngineCommand, Error, ImageReason, NamedKind};
use crate::figures::{ContainerLimits, Figures};
use crate::image::ImageReference;
use crate::labels;
use crate::session::SessionId;
use crate::words;

/// How long a registry may take to say what an image is made of. Nothing waits for it.
const MANIFEST_LIMIT: Duration = Duration::from_secs(20);
/// How often a network is removed that no container uses and that is said to be in use, and how long to wait between: Docker lets
/// go of it a moment after the container is gone.
const LETS_GO: (u32, Duration) = (10, Duration::from_millis(50));
/// The registry whose images go without its name.
const DOCKER_HUB: &str = "docker.io";
/// Bytes read from an exec at once.
const EXEC_BUFFER: usize = 64 * 1024;

/// Events after which a session may be another than before, as Docker and Podman call them.
const CHANGES: [&str; 12] = [
    "create", "start", "die", "died", "pause", "unpause", "rename", "destroy", "remove", "stop",
    "kill", "oom",
];

/// Capabilities that no development work needs and that reach beyond the container.
const DROPPED_CAPABILITIES: [&str; 2] = ["MKNOD", "NET_RAW"];
/// One that `sudo` and `su` need to tell the kernel's log what they do, and nobody else.
const AUDIT_WRITE: &str = "AUDIT_WRITE";

#[async_trait]
impl Engine for DockerEngine {
    fn identity(&self) -> &EngineIdentity {
        self.known_as()
    }

    async fn facts(&self) -> Result<EngineFacts, Error> {
        self.ask_facts().await
    }

    async fn capacity(&self) -> Result<EngineCapacity, Error> {
        let answer = self
            .asked("/info".to_owned(), "ask the engine what it has")
            .await?;
        Ok(answers::capacity(&answer))
    }

    async fn image(&self, image: &ImageReference) -> Result<Option<ImageFacts>, Error> {
        const OPERATION: &str = "inspect the image";
        let found = self
            .found(format!("/images/{image}/json"), OPERATION)
            .await?;
        let found = match found {
            Some(found) => Some(found),
            // Podman calls an image that was made on this machine `localhost/NAME`, and finds it by its short name
            // as well, but not by the name that Docker would give it.
            None if image.registry() == DOCKER_HUB => {
                let path = format!("/images/{}/json", image.familiar());
                let found = self.found(path, OPERATION).await?;
                let is_local = |name: &String| name.starts_with("localhost/");
                found.filter(|found| answers::image_names(found).iter().any(is_local))
            }
            None => None,
        };
        found
            .map(|found| answers::image(&found).ok_or_else(|| unreadable(OPERATION)))
            .transpose()
    }

    async fn images(&self) -> Result<Vec<ImageView>, Error> {
        const OPERATION: &str = "list the images";
        let answer = self.asked("/images/json".to_owned(), OPERATION).await?;
        let mut views = answers::images(&answer).ok_or_else(|| unreadable(OPERATION))?;
        views.sort_by(|a, b| a.image_name.cmp(&b.image_name));
        views.dedup_by(|a, b| a.image_name == b.image_name);
        Ok(views)
    }

    async fn credential(&self, image: &ImageReference, waits: Waits<'_>) -> Lent {
        Lender::new()
            .lend(image.registry(), self.command(), waits)
            .await
    }

    async fn pull(
        &self,
        image: &ImageReference,
        lent: &Lent,
    ) -> Result<BoxStream<'static, Result<PullMessage, Error>>, Error> {
        let client = self.client();
        let credentials = lent.credential.as_ref().map(for_engine);
        let problem = lent.problem.clone();
        let options = CreateImageOptions {
            from_image: Some(image.repository()),
            tag: Some(image.tag_or_digest().to_owned()),
            ..CreateImageOptions::default()
        };
        let (name, command) = (image.to_string(), self.command());
        let messages = client.create_image(Some(options), None, credentials);
        Ok(messages
            .map_err(move |error| pull_error(command, &name, problem.as_deref(), &error))
            .try_filter_map(|message| future::ready(Ok(pull_message(message))))
            .boxed())
    }

    async fn layer_sizes(
        &self,
        image: &ImageReference,
        architecture: &str,
        lent: &Lent,
    ) -> Result<Vec<LayerSize>, Error> {
        let credential = lent.credential.as_ref();
        let asked = registry::layer_sizes(image.as_reference(), architecture, credential);
        let answer = tokio::time::timeout(MANIFEST_LIMIT, asked)
            .await
            .map_err(|_elapsed| format!("no answer within {} s", MANIFEST_LIMIT.as_secs()))
            .and_then(|answer| answer.map_err(|problem| words::tamed(&problem)));
        answer.map_err(|message| Error::ImageUnavailable {
            image: image.to_string(),
            reason: ImageReason::Network,
            message,
            command: self.command(),
        })
    }

    async fn load_image(&self, archive: Bytes) -> Result<(), Error> {
        let client = self.client();
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
        const OPERATION: &str = "inspect the volume";
        let found = self.found(format!("/volumes/{name}"), OPERATION).await?;
        let labels = |found| {
            Ok(answers::volume(&found)
                .ok_or_else(|| unreadable(OPERATION))?
                .1)
        };
        found.map(labels).transpose()
    }

    async fn create_volume(&self, name: &str, labels: &Labels) -> Result<(), Error> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let created = self.client().create_volume(request).await;
        let volume = created.map_err(|error| self.failed("create the volume", &error))?;
        // An engine answers with the volume of that name, also when it was there before.
        if labels
            .iter()
            .all(|(key, value)| volume.labels.get(key) == Some(value))
        {
            Ok(())
        } else {
            Err(Error::NameConflict {
                kind: NamedKind::Volume,
                name: name.to_owned(),
                command: self.command(),
            })
        }
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        let client = self.client();
        match client
            .remove_volume(name, None::<RemoveVolumeOptions>)
            .await
        {
            Ok(()) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(ApiError::DockerResponseServerError {
                status_code: 409,
                message,
            }) => Err(Error::VolumeInUse {
                volume: name.to_owned(),
                users: wording::containers_named_in(&message),
                command: self.command(),
            }),
            Err(error) => Err(self.failed("remove the volume", &error)),
        }
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerFacts>, Error> {
        const OPERATION: &str = "inspect the container";
        let path = format!("/containers/{name}/json");
        let found = self.found(path, OPERATION).await?;
        found
            .map(|found| answers::container(&found).ok_or_else(|| unreadable(OPERATION)))
            .transpose()
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let client = self.client();
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
            }) => Err(Error::NameConflict {
                kind: NamedKind::Container,
                name: spec.name.clone(),
                command: self.command(),
            }),
            Err(ApiError::DockerResponseServerError { message, .. })
                if wording::says_no_such_image(&message) =>
            {
                Err(Error::ImageUnavailable {
                    image: spec.image.clone(),
                    reason: ImageReason::NotFound,
                    message: "the engine does not have it any more".to_owned(),
                    command: self.command(),
                })
            }
            Err(error) => Err(self.failed_on_network("create the container", &error)),
        }
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), Error> {
        let options = RenameContainerOptions {
            name: name.to_owned(),
        };
        let renamed = self.client().rename_container(container, options).await;
        renamed.map_err(|error| self.failed("rename the container", &error))
    }

    async fn upload(&self, container: &str, folder: &str, archive: Archive) -> Result<(), Error> {
        let client = self.client();
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
        let client = self.client();
        let options = DownloadFromContainerOptions {
            path: path.to_owned(),
        };
        let archive = client.download_from_container(container, Some(options));
        let command = self.command();
        Ok(archive
            .map_err(move |error| translate(command, "copy files out of the container", &error))
            .boxed())
    }

    async fn start_container(&self, name: &str) -> Result<(), Error> {
        let client = self.client();
        let started = client
            .start_container(name, None::<StartContainerOptions>)
            .await;
        started.map_err(|error| self.failed_on_network("start the container", &error))
    }

    async fn stop_container(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let client = self.client();
        let options = StopContainerOptions {
            t: i32::try_from(grace.as_secs()).ok(),
            ..Default::default()
        };
        match client.stop_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(self.failed("stop the container", &error)),
        }
    }

    async fn unpause_container(&self, name: &str) -> Result<(), Error> {
        match self.client().unpause_container(name).await {
            Ok(()) => Ok(()),
            // Engines differ in how they refuse what is not paused; what it is now decides.
            Err(error) => match self.container(name).await? {
                Some(container) if container.state == ContainerState::Running => Ok(()),
                Some(_) | None => Err(self.failed("unpause the container", &error)),
            },
        }
    }

    async fn pause_container(&self, name: &str) -> Result<(), Error> {
        let paused = self.client().pause_container(name).await;
        paused.map_err(|error| self.failed("pause the container", &error))
    }

    async fn remove_container(&self, name: &str) -> Result<bool, Error> {
        let client = self.client();
        // Of the volumes, these are the nameless ones that the engine made for this container; one that
        // another container uses too stays.
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        match client.remove_container(name, Some(options)).await {
            Ok(()) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(self.failed("remove the container", &error)),
        }
    }

    async fn networks(&self) -> Result<Vec<NetworkFacts>, Error> {
        const OPERATION: &str = "list the networks";
        let filters = answers::filters(&[("label", &[labels::NETWORK])]);
        let networks = if self.command() == EngineCommand::Podman {
            // When Podman 4.3 writes a network as Docker would, it forgets until the next change that the network
            // is apart from others.
            let path = format!("{}/networks/json?{filters}", answers::PODMANS_OWN);
            answers::podman_networks(&self.asked(path, OPERATION).await?)
        } else {
            let path = format!("/networks?{filters}");
            answers::networks(&self.asked(path, OPERATION).await?)
        };
        networks.ok_or_else(|| unreadable(OPERATION))
    }

    async fn create_network(
        &self,
        name: &str,
        labels: &Labels,
        kind: NetworkKind,
    ) -> Result<(), Error> {
        let options = match (kind, self.command()) {
            (NetworkKind::Shared, _) => {
                let mut options =
                    HashMap::from([(answers::REACH_EACH_OTHER.to_owned(), "false".to_owned())]);
                // What was set for the line that this machine is on holds for the default network alone.
                let usual = self.found("/networks/bridge".to_owned(), "look at the networks");
                if let Some(usual) = usual.await?
                    && let Some(bytes) = answers::longest_packet(&usual)
                {
                    options.insert(answers::LONGEST_PACKET.to_owned(), bytes.to_owned());
                }
                options
            }
            (NetworkKind::OfSession, EngineCommand::Podman) => {
                HashMap::from([("isolate".to_owned(), "true".to_owned())])
            }
            (NetworkKind::OfSession, EngineCommand::Docker) => HashMap::new(),
        };
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(options),
            labels: Some(labels.clone()),
            enable_ipv6: Some(false),
            ..NetworkCreateRequest::default()
        };
        let created = self.client().create_network(request).await;
        created
            .map(drop)
            .map_err(|error| self.failed("create the network", &error))
    }

    async fn remove_network(&self, name: &str) -> Result<bool, Error> {
        const OPERATION: &str = "look who uses the network";
        let client = self.client();
        // Docker takes a network away from containers that do not run.
        let filters = answers::filters(&[("network", &[name])]);
        for _ in 0..LETS_GO.0 {
            let users = self
                .asked(format!("/containers/json?all=true&{filters}"), OPERATION)
                .await?;
            let users = answers::containers(&users).ok_or_else(|| unreadable(OPERATION))?;
            if !users.is_empty() {
                return Ok(false);
            }
            match client.remove_network(name).await {
                Ok(()) => return Ok(true),
                Err(error) if is_not_found(&error) => return Ok(false),
                Err(ApiError::DockerResponseServerError { message, .. })
                    if wording::says_network_in_use(&message) =>
                {
                    tokio::time::sleep(LETS_GO.1).await;
                }
                Err(error) => return Err(self.failed("remove the network", &error)),
            }
        }
        Ok(false)
    }

    async fn connect_container(&self, container: &str, network: &str) -> Result<(), Error> {
        const OPERATION: &str = "inspect the container";
        let client = self.client();
        let path = format!("/containers/{container}/json");
        let found = self.asked(path, OPERATION).await?;
        let connected = answers::connections(&found);
        if !answers::can_change_network(&found) {
            log::warn!("container `{container}` stays on the network that it was made on");
            return Ok(());
        }
        let others = connected.iter().filter(|name| {
            let is_default = DEFAULT_NETWORKS.contains(&name.as_str());
            name.as_str() != network && (is_default || name.starts_with(NETWORK_PREFIX))
        });
        for other in others {
            let request = NetworkDisconnectRequest {
                container: container.to_owned(),
                // Docker does it only so when the network is gone.
                force: Some(true),
            };
            match client.disconnect_network(other, request).await {
                Ok(()) => {}
                Err(error) => log::warn!("container `{container}` stays on `{other}`: {error}"),
            }
        }
        if connected.iter().any(|name| name == network) {
            return Ok(());
        }
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: None,
        };
        let connected = client.connect_network(network, request).await;
        connected.map_err(|error| self.failed_on_network("connect the container", &error))
    }

    async fn owned(&self, session: Option<SessionId>) -> Result<Owned, Error> {
        const OPERATION: &str = "list the sessions";
        let label = match session {
            Some(id) => format!("{}={id}", labels::SESSION),
            None => labels::SESSION.to_owned(),
        };
        let filters = answers::filters(&[("label", &[&label])]);
        let (containers, volumes) = tokio::try_join!(
            self.asked(format!("/containers/json?all=true&{filters}"), OPERATION),
            self.asked(format!("/volumes?{filters}"), OPERATION),
        )?;
        let containers = answers::containers(&containers);
        let volumes = answers::volumes(&volumes);
        match (containers, volumes) {
            (Some(containers), Some(volumes)) => Ok(Owned::of_labelled(containers, volumes)),
            (None, _) | (_, None) => Err(unreadable(OPERATION)),
        }
    }

    async fn changes(&self) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        // Volumes' events carry no labels, so that nothing can be sorted out here; but execs, which every
        // look at a file makes, are.
        let filters = answers::filters(&[("type", &["container", "volume"]), ("event", &CHANGES)]);
        let events = answers::lines(self.client(), format!("/events?{filters}"));
        let command = self.command();
        Ok(events
            .map(move |event| {
                event
                    .map(|event| measured::change(&event))
                    .map_err(|error| translate(command, "follow the engine's events", &error))
            })
            .boxed())
    }

    async fn figures(
        &self,
        container: &str,
    ) -> Result<BoxStream<'static, Result<Figures, Error>>, Error> {
        let path = format!("/containers/{container}/stats?stream=true");
        let measured = answers::lines(self.client(), path);
        let command = self.command();
        Ok(measured
            .map_err(move |error| translate(command, "measure the container", &error))
            .try_filter_map(move |said| future::ready(Ok(measured::figures(&said, command))))
            .boxed())
    }

    async fn limits(&self, container: &str) -> Result<ContainerLimits, Error> {
        let path = format!("/containers/{container}/json");
        let found = self.asked(path, "inspect the container").await?;
        Ok(measured::limits(&found))
    }

    async fn log(
        &self,
        container: &str,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<ExecOutput, Error>>, Error> {
        let path = format!(
            "/containers/{container}/logs?stdout=true&stderr=true&tail={tail}&follow={follow}"
        );
        let command = self.command();
        let pieces = answers::pieces(self.client(), path)
            .map_err(move |error| translate(command, "read the container's log", &error));
        Ok(frames::told_apart(pieces.boxed()))
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<Exec, Error> {
        let client = self.client();
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
        let command = self.command();
        match run.await {
            Ok(StartExecResults::Attached { output, input }) => Ok(Exec {
                input,
                output: output
                    .map(move |piece| match piece {
                        Ok(LogOutput::StdErr { message }) => Ok(ExecOutput::Err(message)),
                        Ok(
                            LogOutput::StdOut { message }
                            | LogOutput::StdIn { message }
                            | LogOutput::Console { message },
                        ) => Ok(ExecOutput::Out(message)),
                        Err(error) => Err(translate(command, "read from the container", &error)),
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

impl DockerEngine {
    /// Asks for something that has to be there.
    async fn asked(&self, path: String, operation: &str) -> Result<Value, Error> {
        let answer = answers::json(self.client(), path).await;
        answer.map_err(|error| self.failed(operation, &error))
    }

    /// Tells what failed that takes a network.
    fn failed_on_network(&self, operation: &str, error: &ApiError) -> Error {
        match error {
            ApiError::DockerResponseServerError { message, .. }
                if wording::says_no_such_network(message) =>
            {
                Error::NetworkGone {
                    operation: operation.to_owned(),
                }
            }
            error => self.failed(operation, error),
        }
    }

    /// Asks for something that may not be there.
    async fn found(&self, path: String, operation: &str) -> Result<Option<Value>, Error> {
        match answers::json(self.client(), path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed(operation, &error)),
        }
    }
}

fn unreadable(operation: &str) -> Error {
    Error::EngineUnreadable {
        operation: operation.to_owned(),
        message: "it lacks what such an answer has".to_owned(),
    }
}

fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let (_, mount_point) = &spec.volume;
    let volumes = std::iter::once(&spec.volume).chain(&spec.inner_volumes);
    let binds = volumes.map(|(volume, place)| format!("{volume}:{place}"));
    let binds = binds.collect();
    let mut dropped = DROPPED_CAPABILITIES.map(str::to_owned).to_vec();
    let mut no_new_privileges = Vec::new();
    if !spec.may_gain_privileges {
        dropped.push(AUDIT_WRITE.to_owned());
        no_new_privileges.push("no-new-privileges".to_owned());
    }
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
            binds: Some(binds),
            network_mode: Some(match &spec.network {
                ContainerNetwork::None => "none".to_owned(),
                ContainerNetwork::Default => "bridge".to_owned(),
                ContainerNetwork::Named(name) => name.clone(),
            }),
            security_opt: Some(no_new_privileges),
            cap_drop: Some(dropped),
            pids_limit: i64::try_from(spec.pids_limit).ok(),
            nano_cpus: spec.cpu_limit.map(nano_cpus),
            memory: spec
                .memory_limit
                .and_then(|bytes| i64::try_from(bytes).ok()),
            memory_swap: spec
                .memory_and_swap_limit
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

pub(super) fn pull_message(message: CreateImageInfo) -> Option<PullMessage> {
    let layer = message.id?;
    let detail = message.progress_detail.unwrap_or_default();
    let count = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let step = wording::layer_step(
        message.status.as_deref().unwrap_or_default(),
        count(detail.current).unwrap_or_default(),
        count(detail.total).filter(|total| *total > 0),
    )?;
    Some(PullMessage { layer, step })
}
