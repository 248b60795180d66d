//! The engine that a walk goes on: one that is made up, in time that is made up, or a real one. It can
//! be looked at and meddled with past the app.

use std::sync::Arc;
use std::time::Duration;

use cove_core::engine::{ContainerState, LayerStep, PullMessage};
use cove_core::session::SessionId;
use cove_core::settings::Settings;
use cove_testbed as testbed;
use serde_json::Value;

use super::model::Is;
use super::steps::Fault;
use crate::support::fake_engine::FakeEngine;
use crate::support::{App, Start};

/// How long a real engine may take to answer a look.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) enum World {
    MadeUp(Arc<FakeEngine>),
    Real(Arc<testbed::Engine>),
}

impl World {
    /// An engine that takes this many milliseconds for every call.
    pub(super) fn made_up(pace: u64) -> Self {
        let engine = FakeEngine::new();
        engine.take_its_time(Duration::from_millis(pace));
        Self::MadeUp(engine)
    }

    /// How long to wait for runs that are under way.
    pub(super) fn rest(&self) -> Duration {
        match self {
            Self::MadeUp(_) => Duration::from_secs(45),
            Self::Real(_) => Duration::from_millis(50),
        }
    }

    /// How long the engine may still be busy with what it was late with.
    pub(super) fn lateness(&self) -> Duration {
        match self {
            Self::MadeUp(_) => Duration::ZERO,
            Self::Real(_) => Duration::from_secs(5),
        }
    }

    /// An image that is not on the engine at first.
    pub(super) fn image(&self) -> &'static str {
        match self {
            Self::MadeUp(_) => "slow/image",
            Self::Real(_) => "127.0.0.1:1/nobody/serves:this",
        }
    }

    /// Whether nobody can have that image.
    pub(super) fn cannot_pull(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    pub(super) fn fault(&self, operation: &'static str, fault: Fault) {
        if let Self::MadeUp(engine) = self {
            engine.next(operation, fault.act(operation));
        }
    }

    pub(super) fn lose_images(&self) {
        let message = |current| PullMessage {
            layer: "a".to_owned(),
            step: LayerStep::Downloading {
                current,
                total: Some(4),
            },
        };
        if let Self::MadeUp(engine) = self {
            let second = Duration::from_secs(1);
            engine.pulls((1..=4).map(|current| (second, message(current))).collect());
        }
    }

    pub(super) fn go_away(&self) {
        if let Self::MadeUp(engine) = self {
            engine.go_away();
        }
    }

    /// Answers again.
    pub(super) fn come_back(&self) {
        if let Self::MadeUp(engine) = self {
            engine.come_back();
        }
    }

    /// Ends all faults.
    pub(super) fn calm_down(&self) {
        if let Self::MadeUp(engine) = self {
            engine.play_no_more();
            engine.come_back();
        }
    }

    /// Returns whether nothing at all is left, where that can be told: a real engine has other users.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::MadeUp(engine) => engine.holds() == (0, 0),
            Self::Real(_) => true,
        }
    }

    /// Removes what a walk that failed has left.
    pub(super) fn clear(&self, id: SessionId) {
        if let Self::Real(engine) = self {
            let name = id.resource_name();
            drop(engine.run(&["rm", "--force", &name]));
            drop(engine.run(&["volume", "rm", "--force", &name]));
        }
    }

    /// Starts the app on it.
    pub(super) fn launch(&self) -> App {
        let settings = Settings {
            time_limit_s: 10,
            ..Settings::default()
        };
        let start = Start {
            settings,
            ..Start::default()
        };
        match self {
            Self::MadeUp(engine) => App::over(engine.clone(), start),
            Self::Real(engine) => App::with(engine, Start::default()),
        }
    }

    pub(super) fn container_state(&self, name: &str) -> Option<ContainerState> {
        match self {
            Self::MadeUp(engine) => engine.container_state(name),
            Self::Real(engine) => {
                let told = look(engine, &format!("/containers/{name}/json"))?;
                Some(match told["State"]["Status"].as_str() {
                    Some("created") => ContainerState::Created,
                    Some("running") => ContainerState::Running,
                    Some("exited") => ContainerState::Exited,
                    _ => ContainerState::Unusable,
                })
            }
        }
    }

    pub(super) fn has_volume(&self, name: &str) -> bool {
        match self {
            Self::MadeUp(engine) => engine.has_volume(name),
            Self::Real(engine) => look(engine, &format!("/volumes/{name}")).is_some(),
        }
    }

    /// Kills a container that runs.
    pub(super) fn kill(&self, name: &str) {
        match self {
            Self::MadeUp(engine) => engine.kill(name),
            // It may have ended by itself.
            Self::Real(engine) => drop(engine.run(&["kill", name]).unwrap()),
        }
    }

    /// Removes a container, running or not.
    pub(super) fn remove(&self, name: &str) {
        match self {
            Self::MadeUp(engine) => engine.remove(name),
            Self::Real(engine) => drop(engine.run(&["rm", "--force", name]).unwrap()),
        }
    }

    /// Returns what the engine's labels say of a session, for an app that knows nothing else.
    pub(super) fn truth(&self, id: SessionId) -> Is {
        let name = id.resource_name();
        match self.container_state(&name) {
            Some(ContainerState::Created) => Is::Interrupted,
            Some(_) => Is::Stopped,
            None if self.has_volume(&name) => Is::Stopped,
            None => Is::Gone,
        }
    }
}

/// Looks at a real engine. It may answer only when a copy into the container is over, so the app goes on meanwhile.
fn look(engine: &testbed::Engine, path: &str) -> Option<Value> {
    tokio::task::block_in_place(|| engine.look(path, LOOK_LIMIT)).unwrap()
}
