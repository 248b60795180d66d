//! The network of a session: it reaches what the engine's machine reaches, and no other session.
//!
//! Where the engine can keep the containers of one network apart, all sessions share one, which is made for the first of
//! them and removed with the last. Elsewhere each session has one of its own, made anew at each start: Podman 4.3
//! forgets that a network is apart from others when anybody has it listed as Docker would.
//!
//! A network can be removed by anybody while no container *runs* on it, another Cove included. So nothing here relies on
//! one that was there a moment ago: a start that does not find its network gets another. That is also why networks
//! may be removed at any time when no container uses them. What reaches the engine's machine itself is not decided here.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use super::Run;
use super::unwind::Unwind;
use crate::engine::{
    ContainerFacts, ContainerNetwork, Engine, EngineFacts, EngineId, NETWORK_PREFIX, NetworkKind,
};
use crate::error::{Error, NetworkReason};
use crate::journal::Undo;
use crate::labels;
use crate::session::{Network, SessionId};

/// How often a start is tried anew when somebody has removed the network in between.
const TRIES: usize = 4;

/// Lets the runs of one engine look for its network one after the other, so that they find the same one. Nothing goes
/// wrong without that, but that there may be two.
#[derive(Default)]
pub(crate) struct Networks {
    turns: Mutex<HashMap<EngineId, Arc<Turn<()>>>>,
}

impl Networks {
    fn turn(&self, engine: &EngineId) -> Arc<Turn<()>> {
        Arc::clone(self.turns.lock().entry(engine.clone()).or_default())
    }
}

impl Run {
    /// Returns what a new container is connected to.
    pub(super) async fn network_of_new_container(
        &self,
        engine: &EngineFacts,
        unwind: &Unwind,
    ) -> Result<ContainerNetwork, Error> {
        match (self.request.network, engine.network_kind) {
            (Network::None, _) => Ok(ContainerNetwork::None),
            (Network::Own, NetworkKind::OfSession) => Ok(ContainerNetwork::Default),
            (Network::Own, NetworkKind::Shared) => self
                .ensure_network(engine, unwind)
                .await
                .map(ContainerNetwork::Named),
        }
    }

    /// Starts a container that does not run, on the network that its session is to have; one that
    /// `is_connected` is on it already, as far as is known.
    pub(super) async fn start_container(
        &self,
        engine: &EngineFacts,
        (container, is_connected): (&str, bool),
        undo: Option<Undo>,
        unwind: &Unwind,
    ) -> Result<(), Error> {
        for attempt in 0..TRIES {
            if self.request.network == Network::Own && !(is_connected && attempt == 0) {
                let network = self.ensure_network(engine, unwind).await?;
                let (engine, id) = (Arc::clone(&self.engine), container.to_owned());
                let owner = self.id;
                let connect = async move {
                    engine.connect_container(&id, &network).await?;
                    remove_unused(&*engine, owner, Some(&network)).await
                };
                match unwind.effect(None, connect).await {
                    Err(Error::NetworkGone { .. }) => continue,
                    connected => connected?,
                }
            }
            let (engine, id) = (Arc::clone(&self.engine), container.to_owned());
            let start = async move { engine.start_container(&id).await };
            match unwind.effect(undo.clone(), start).await {
                Err(Error::NetworkGone { .. }) => {}
                started => return started,
            }
        }
        Err(Error::NetworkGone {
            operation: "start the container".to_owned(),
        })
    }

    /// Makes sure that there is a network for the session, and returns its name.
    async fn ensure_network(&self, facts: &EngineFacts, unwind: &Unwind) -> Result<String, Error> {
        let turn = self.networks.turn(&self.engine.identity().id);
        let _turn = turn.lock().await;
        if let Some(name) = self.find_network(facts, unwind).await? {
            return Ok(name);
        }
        let create = async |kind| {
            let name = new_name();
            let undo = Undo::RemoveNetwork { name: name.clone() };
            let (engine, id) = (Arc::clone(&self.engine), self.id);
            let create = async move { create(&*engine, &name, id, kind).await.map(|()| name) };
            unwind.effect(Some(undo), create).await
        };
        match create(facts.network_kind).await {
            Err(error) if may_be_of_session(&error, facts.network_kind) => {
                create(NetworkKind::OfSession).await
            }
            // The last addresses may have gone to a network that another Cove has made meanwhile.
            Err(error) if reason_of(&error) == Some(NetworkReason::NoAddresses) => {
                self.find_network(facts, unwind).await?.ok_or(error)
            }
            created => created,
        }
    }

    /// Returns a network that all sessions share, if there is one. The run that made it may be taken back, and leaves
    /// it to whoever uses it by then.
    async fn find_network(
        &self,
        facts: &EngineFacts,
        unwind: &Unwind,
    ) -> Result<Option<String>, Error> {
        let found = usable(&*self.engine, facts.network_kind).await?;
        if let Some(name) = &found {
            let undo = Undo::RemoveNetwork { name: name.clone() };
            unwind.effect(Some(undo), async { Ok(()) }).await?;
        }
        Ok(found)
    }
}

/// Returns whether a container starts on the network that its session is to have without anything being done for that.
/// Whether that network is still there, the start says.
pub(super) fn is_connected(container: &ContainerFacts, kind: NetworkKind) -> bool {
    kind == NetworkKind::Shared && container.is_on_own_network()
}

/// Starts the container of a session again, on the network that it is to have.
pub(super) async fn start_again(
    engine: &dyn Engine,
    container: &ContainerFacts,
    owner: SessionId,
) -> Result<(), Error> {
    if labels::network(&container.labels) == Network::Own {
        let kind = engine.facts().await?.network_kind;
        if is_connected(container, kind) {
            match engine.start_container(&container.id).await {
                Err(Error::NetworkGone { .. }) => {}
                started => return started,
            }
        }
        let name = if let Some(name) = usable(engine, kind).await? {
            name
        } else {
            // It is removed with the session that the container makes.
            let name = new_name();
            match create(engine, &name, owner, kind).await {
                Err(error) if may_be_of_session(&error, kind) => {
                    create(engine, &name, owner, NetworkKind::OfSession).await?;
                }
                created => created?,
            }
            name
        };
        engine.connect_container(&container.id, &name).await?;
        remove_unused(engine, owner, Some(&name)).await?;
    }
    engine.start_container(&container.id).await
}

/// Removes the networks that the session had, and those that it shared, where no container uses them; not this one.
pub(crate) async fn remove_unused(
    engine: &dyn Engine,
    owner: SessionId,
    keep: Option<&str>,
) -> Result<(), Error> {
    for network in engine.networks().await? {
        let had = labels::belong_to(&network.labels, owner)
            // While a session starts, its network may be another's as well.
            || (keep.is_none() && labels::is_shared_network(&network.labels));
        if had && keep != Some(network.name.as_str()) && network.name.starts_with(NETWORK_PREFIX) {
            engine.remove_network(&network.name).await?;
        }
    }
    Ok(())
}

/// Returns a network that is there for all sessions; of several always the same.
async fn usable(engine: &dyn Engine, kind: NetworkKind) -> Result<Option<String>, Error> {
    match kind {
        NetworkKind::OfSession => Ok(None),
        NetworkKind::Shared => {
            let networks = engine.networks().await?.into_iter();
            let usable = networks.filter(|network| {
                network.separates
                    && labels::is_shared_network(&network.labels)
                    && network.name.starts_with(NETWORK_PREFIX)
            });
            Ok(usable.map(|network| network.name).min())
        }
    }
}

async fn create(
    engine: &dyn Engine,
    name: &str,
    owner: SessionId,
    kind: NetworkKind,
) -> Result<(), Error> {
    let labels = match kind {
        NetworkKind::Shared => labels::of_network(None),
        NetworkKind::OfSession => labels::of_network(Some(owner)),
    };
    engine.create_network(name, &labels, kind).await
}

/// Returns whether an engine that cannot keep the containers of one network apart can have a network for each.
fn may_be_of_session(error: &Error, kind: NetworkKind) -> bool {
    reason_of(error) == Some(NetworkReason::NotSeparated) && kind == NetworkKind::Shared
}

const fn reason_of(error: &Error) -> Option<NetworkReason> {
    match error {
        Error::NetworkUnavailable { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// Returns a name that nobody else has: what bears it is Cove's, however many of it make networks at once.
fn new_name() -> String {
    let id = Uuid::new_v4().simple().to_string();
    let short: String = id.chars().take(12).collect();
    format!("{NETWORK_PREFIX}{short}")
}
