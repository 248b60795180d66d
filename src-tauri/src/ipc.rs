//! What crosses between Rust and the window: events out, arguments in, and the one error shape.

use std::collections::HashMap;

use cove_core::engine::EngineView;
use cove_core::error::{Error, ErrorReport};
use cove_core::event::{Eta, FilesChanged, Phase, PortsEvent, Reporter, SessionEvent};
use cove_core::session::SessionId;
use log::Level;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tauri::ipc::InvokeBody;
use tauri::{AppHandle, Emitter};

/// What events change is also logged, under this target, so that a support request can show what happened.
pub(crate) const EVENT_LOG: &str = "cove::event";

/// Emits the events of all sessions to the window.
pub(crate) struct EventReporter {
    app: AppHandle,
    milestones: Mutex<Milestones>,
}

/// The last thing that was logged of each run that is under way.
#[derive(Debug, Default)]
struct Milestones(HashMap<SessionId, Milestone>);

/// What of a run's progress is worth a line in the log, when it is another than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Milestone {
    phase: Phase,
    is_stalled: bool,
}

impl Milestones {
    /// Returns whether an event says something new, other than that the run goes on.
    fn is_new(&mut self, event: &SessionEvent) -> bool {
        match event {
            SessionEvent::Progress(event) => {
                let milestone = Milestone {
                    phase: event.phase,
                    is_stalled: matches!(event.progress.eta, Eta::Stalled { .. }),
                };
                self.0.insert(event.session_id, milestone) != Some(milestone)
            }
            SessionEvent::Ready(_) | SessionEvent::Failed(_) | SessionEvent::Cancelled(_) => {
                self.0.remove(&event.session_id());
                true
            }
            SessionEvent::Export(event) => event.outcome.is_some(),
            SessionEvent::Transfer(event) => event.outcome.is_some(),
            SessionEvent::Changed(_) => true,
        }
    }
}

impl EventReporter {
    pub(crate) fn new(app: AppHandle) -> Self {
        Self {
            app,
            milestones: Mutex::default(),
        }
    }

    /// Logs an event that says something new; with `COVE_LOG=debug` also the heartbeats between.
    fn log(&self, event: &SessionEvent) {
        let level = if self.milestones.lock().is_new(event) {
            Level::Info
        } else {
            Level::Debug
        };
        if log::log_enabled!(target: EVENT_LOG, level) {
            let text = serde_json::to_string(event).unwrap_or_default();
            log::log!(target: EVENT_LOG, level, "{} {text}", event.name());
        }
    }

    fn emit<T: Serialize + Clone>(&self, name: &str, payload: &T) {
        if let Err(error) = self.app.emit(name, payload) {
            log::error!("an event did not reach the window: {error}");
        }
    }
}

impl Reporter for EventReporter {
    fn report(&self, event: &SessionEvent) {
        self.log(event);
        self.emit(event.name(), event);
    }

    fn engines_changed(&self, engines: &[EngineView]) {
        self.emit("engine:changed", &json!({ "engines": engines }));
    }

    fn files_changed(&self, changed: &FilesChanged) {
        self.emit("files:changed", changed);
    }

    fn ports_changed(&self, event: &PortsEvent) {
        self.emit("ports:changed", event);
    }
}

/// A failure on its way to the window.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct WireError(ErrorReport);

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        Self(error.report())
    }
}

/// A success on its way to the window: what is said, and `"ok": true`.
#[derive(Debug, Serialize)]
pub(crate) struct Success<T> {
    ok: bool,
    #[serde(flatten)]
    said: T,
}

/// What every command answers with.
pub(crate) type Answer<T> = Result<Success<T>, WireError>;

/// Says that a command succeeded.
#[expect(
    clippy::unnecessary_wraps,
    reason = "every command answers with a result"
)]
pub(crate) fn ok<T: Serialize>(said: T) -> Answer<T> {
    Ok(Success { ok: true, said })
}

/// The arguments of a command, as they came. They are read here rather than by Tauri, so that a
/// wrong one is refused in the one error shape.
pub(crate) struct Arguments<'a>(Option<&'a Map<String, Value>>);

impl<'a> Arguments<'a> {
    pub(crate) fn of(body: &'a InvokeBody) -> Self {
        match body {
            InvokeBody::Json(Value::Object(arguments)) => Self(Some(arguments)),
            InvokeBody::Json(_) | InvokeBody::Raw(_) => Self(None),
        }
    }

    /// Returns an argument, or `null` when it is absent.
    pub(crate) fn value(&self, name: &str) -> &'a Value {
        self.0
            .and_then(|arguments| arguments.get(name))
            .unwrap_or(&Value::Null)
    }

    /// Returns an argument of a certain type; an absent one is `null`.
    ///
    /// # Errors
    /// [`Error::Validation`], naming the argument.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let value = self.value(name);
        T::deserialize(value).map_err(|error| {
            let problem = if value.is_null() {
                "is required".to_owned()
            } else {
                error.to_string()
            };
            Error::field(name, problem)
        })
    }

    /// Returns the session id.
    ///
    /// # Errors
    /// [`Error::SessionIdMissing`], [`Error::Validation`], [`Error::SessionNotFound`].
    pub(crate) fn id(&self) -> Result<SessionId, Error> {
        match self.value("id") {
            Value::Null => Err(Error::SessionIdMissing),
            Value::String(id) => id.parse(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(Error::field("id", "must be a text"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_core::error::ErrorCode;
    use cove_core::event::{CancelledEvent, Progress, ProgressEvent};
    use cove_core::session::{Network, Session, SessionState};
    use cove_core::timing::{RunOutcome, TimingReport};

    /// An event of a run, as far as the log cares.
    fn progress(session_id: SessionId, phase: Phase, eta: Eta) -> SessionEvent {
        SessionEvent::Progress(ProgressEvent {
            session_id,
            seq: 1,
            phase,
            progress: Progress {
                eta,
                ..Progress::none()
            },
            message: String::new(),
        })
    }

    #[test]
    fn of_an_hour_of_pulling_the_log_tells_what_changed_and_no_heartbeat() {
        let mut milestones = Milestones::default();
        let (one, two) = (SessionId::random(), SessionId::random());
        let mut news = 0;
        for quarter in 0..4 * 3_600_u64 {
            // Every ten minutes the line stands still for a minute.
            let eta = if quarter % 2_400 < 240 {
                Eta::Stalled {
                    idle_ms: quarter,
                    layer: None,
                }
            } else {
                Eta::Point { ms: quarter }
            };
            news += usize::from(milestones.is_new(&progress(one, Phase::PullingImage, eta)));
        }
        assert_eq!(news, 12, "six stalls, and six times that it went on");
        assert!(milestones.is_new(&progress(two, Phase::PullingImage, Eta::Calculating)));
        assert!(milestones.is_new(&progress(one, Phase::CreatingVolume, Eta::Calculating)));

        let timing = TimingReport {
            outcome: RunOutcome::Cancelled,
            total_ms: 0,
            usual_ms: None,
            verdict: String::new(),
            phases: Vec::new(),
            pull: None,
        };
        let session = Session {
            session_id: one,
            workspace_id: String::new(),
            name: String::new(),
            project_name: None,
            description: None,
            template: None,
            image: String::new(),
            image_name: String::new(),
            allow_privilege_gain: false,
            network: Network::Own,
            state: SessionState::Cancelled,
            engine: None,
            created: String::new(),
            reconnecting: false,
            ending: false,
            idle_stop_ms: None,
            stopped_unused_minutes: None,
            out_of_memory: None,
            has_container: false,
            leftovers: Vec::new(),
            export: None,
            seq: 2,
        };
        let end = SessionEvent::Cancelled(Box::new(CancelledEvent {
            session_id: one,
            seq: 2,
            session,
            phase: Phase::CreatingVolume,
            undone: Vec::new(),
            timing,
        }));
        assert!(milestones.is_new(&end));
        assert_eq!(
            milestones.0.len(),
            1,
            "nothing is kept of a run that has ended"
        );
    }

    #[track_caller]
    fn check_id(arguments: Value, expected: ErrorCode) {
        let body = InvokeBody::Json(arguments);
        let error = Arguments::of(&body).id().unwrap_err();
        assert_eq!(error.code(), expected, "{body:?}");
    }

    #[test]
    fn an_id_that_is_none_is_refused_before_anything_is_asked() {
        for missing in [
            json!({}),
            json!({ "id": null }),
            json!([]),
            json!(null),
            json!({ "id": "" }),
        ] {
            check_id(missing, ErrorCode::SessionIdMissing);
        }
        for word in ["undefined", "null", "  ", " undefined "] {
            check_id(json!({ "id": word }), ErrorCode::SessionIdMissing);
        }
        check_id(json!({ "id": "no-uuid" }), ErrorCode::SessionNotFound);
        check_id(json!({ "id": 7 }), ErrorCode::ValidationError);
    }

    #[test]
    fn a_wrong_argument_is_named() {
        let body = InvokeBody::Json(json!({ "cols": "wide" }));
        let arguments = Arguments::of(&body);
        for (name, problem) in [("cols", "invalid type"), ("rows", "is required")] {
            let report = arguments.get::<u16>(name).unwrap_err().report();
            let field = report.details["fields"][name].as_str().unwrap_or_default();
            assert!(field.contains(problem), "{report:?}");
        }
    }
}
