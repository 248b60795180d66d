//! What crosses between Rust and the window: events out, arguments in, and the one error shape.

use cove_core::engine::EngineView;
use cove_core::error::{Error, ErrorReport};
use cove_core::event::{Reporter, SessionEvent};
use cove_core::session::SessionId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tauri::ipc::InvokeBody;
use tauri::{AppHandle, Emitter};

/// Every event is also logged, under this target, so that a support request can show what happened.
pub(crate) const EVENT_LOG: &str = "cove::event";

/// Emits the events of all sessions to the window.
pub(crate) struct EventReporter {
    app: AppHandle,
}

impl EventReporter {
    pub(crate) fn new(app: AppHandle) -> Self {
        Self { app }
    }

    fn emit<T: Serialize + Clone>(&self, name: &str, payload: &T) {
        if let Err(error) = self.app.emit(name, payload) {
            log::error!("an event did not reach the window: {error}");
        }
    }
}

impl Reporter for EventReporter {
    fn report(&self, event: &SessionEvent) {
        if log::log_enabled!(target: EVENT_LOG, log::Level::Info) {
            let text = serde_json::to_string(event).unwrap_or_default();
            log::info!(target: EVENT_LOG, "{} {text}", event.name());
        }
        self.emit(event.name(), event);
    }

    fn list_changed(&self) {
        self.emit("sessions:changed", &json!({}));
    }

    fn engines_changed(&self, engines: &[EngineView]) {
        self.emit("engine:changed", &json!({ "engines": engines }));
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
