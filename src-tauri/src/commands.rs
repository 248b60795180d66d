//! The commands: one thin function each. Arguments are checked, the registry is called, the answer is
//! wrapped; nothing is decided here.

use cove_core::engine::{EngineView, ImageView};
use cove_core::error::Error;
use cove_core::event::Phase;
use cove_core::files::{DirContent, FileContent};
use cove_core::session::{Session, SessionId, SessionState, SessionStatus};
use cove_core::sessions::Sessions;
use cove_core::settings::Settings;
use cove_core::template::{self, TemplateCard};
use cove_core::terminal::{Output, Sink, Size};
use serde::Serialize;
use serde_json::json;
use tauri::ipc::{Channel, Invoke, InvokeResponseBody, IpcResponse, JavaScriptChannelId, Request};
use tauri::{AppHandle, State, Webview, Wry};

use crate::ipc::{Answer, Arguments, WireError, ok};
use crate::settings;

/// A name and its handler are one line, so that none is known and not handled.
macro_rules! commands {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        fn dispatch(invoke: Invoke<Wry>) -> bool {
            let handler: fn(Invoke<Wry>) -> bool = tauri::generate_handler![$($name),*];
            handler(invoke)
        }
    };
}

commands![
    create_session,
    session_status,
    cancel_session,
    retry_session,
    open_session,
    stop_session,
    delete_session,
    list_sessions,
    list_templates,
    list_images,
    engine_status,
    read_settings,
    write_settings,
    list_dir,
    read_file,
    write_file,
    open_terminal,
    write_terminal,
    resize_terminal,
    ack_terminal,
    close_terminal,
];

/// Handles a command, or refuses it in the one error shape.
pub(crate) fn handle(invoke: Invoke<Wry>) -> bool {
    let name = invoke.message.command();
    if NAMES.contains(&name) {
        return dispatch(invoke);
    }
    let error = Error::UnknownCommand(name.to_owned());
    invoke.resolver.reject(WireError::from(error));
    true
}

/// Says which session was meant, and nothing more.
#[derive(Serialize)]
struct Done {
    session_id: SessionId,
}

/// Says which session was meant, and what it is now.
#[derive(Serialize)]
struct Acted {
    session_id: SessionId,
    state: SessionState,
    phase: Phase,
}

impl From<SessionStatus> for Acted {
    fn from(status: SessionStatus) -> Self {
        Self {
            session_id: status.session_id,
            state: status.state,
            phase: status.phase,
        }
    }
}

#[derive(Serialize)]
struct Created {
    session_id: SessionId,
    phase: Phase,
    message: &'static str,
}

#[tauri::command]
async fn create_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Created> {
    let session_id = sessions.create(Arguments::of(request.body()).value("request"))?;
    ok(Created {
        session_id,
        phase: Phase::Starting,
        message: "Starting",
    })
}

#[tauri::command]
async fn session_status(
    request: Request<'_>,
    sessions: State<'_, Sessions>,
) -> Result<SessionStatus, WireError> {
    Ok(sessions.status(Arguments::of(request.body()).id()?).await?)
}

#[tauri::command]
async fn cancel_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Acted> {
    ok(sessions
        .cancel(Arguments::of(request.body()).id()?)
        .await?
        .into())
}

#[tauri::command]
async fn retry_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Acted> {
    ok(sessions
        .open(Arguments::of(request.body()).id()?)
        .await?
        .into())
}

#[tauri::command]
async fn open_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Acted> {
    ok(sessions
        .open(Arguments::of(request.body()).id()?)
        .await?
        .into())
}

#[tauri::command]
async fn stop_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.stop(session_id).await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn delete_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.delete(session_id).await?;
    ok(Done { session_id })
}

#[derive(Serialize)]
struct SessionList {
    sessions: Vec<Session>,
}

#[tauri::command]
async fn list_sessions(sessions: State<'_, Sessions>) -> Answer<SessionList> {
    ok(SessionList {
        sessions: sessions.list().await,
    })
}

#[derive(Serialize)]
struct TemplateList {
    templates: Vec<TemplateCard>,
}

#[tauri::command]
async fn list_templates() -> Answer<TemplateList> {
    ok(TemplateList {
        templates: template::all()
            .iter()
            .map(template::Template::card)
            .collect(),
    })
}

#[derive(Serialize)]
struct ImageList {
    images: Vec<ImageView>,
}

#[tauri::command]
async fn list_images(sessions: State<'_, Sessions>) -> Answer<ImageList> {
    ok(ImageList {
        images: sessions.images().await?,
    })
}

#[derive(Serialize)]
struct EngineList {
    engines: Vec<EngineView>,
}

#[tauri::command]
async fn engine_status(sessions: State<'_, Sessions>) -> Answer<EngineList> {
    ok(EngineList {
        engines: sessions.engines().await,
    })
}

#[derive(Serialize)]
struct SettingsAnswer {
    settings: Settings,
}

#[tauri::command]
async fn read_settings(sessions: State<'_, Sessions>) -> Answer<SettingsAnswer> {
    ok(SettingsAnswer {
        settings: sessions.settings(),
    })
}

#[tauri::command]
async fn write_settings(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<SettingsAnswer> {
    let settings = sessions.set_settings(Arguments::of(request.body()).get("settings")?)?;
    let saved = tauri::async_runtime::spawn_blocking(move || settings::save(&app, settings)).await;
    saved.map_err(|error| Error::Internal(format!("failed to save the settings: {error}")))??;
    ok(SettingsAnswer { settings })
}

#[tauri::command]
async fn list_dir(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<DirContent> {
    let arguments = Arguments::of(request.body());
    ok(sessions
        .list_dir(arguments.id()?, &arguments.get::<String>("path")?)
        .await?)
}

#[tauri::command]
async fn read_file(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<FileContent> {
    let arguments = Arguments::of(request.body());
    ok(sessions
        .read_file(arguments.id()?, &arguments.get::<String>("path")?)
        .await?)
}

#[derive(Serialize)]
struct Written {
    revision: String,
}

#[tauri::command]
async fn write_file(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Written> {
    let arguments = Arguments::of(request.body());
    let (id, path) = (arguments.id()?, arguments.get::<String>("path")?);
    let (content, encoding) = (arguments.get("content")?, arguments.get("encoding")?);
    let revision = arguments.get("revision")?;
    ok(Written {
        revision: sessions
            .write_file(id, &path, content, encoding, revision)
            .await?,
    })
}

#[derive(Serialize)]
struct OpenedTerminal {
    terminal_id: String,
}

#[tauri::command]
async fn open_terminal(
    request: Request<'_>,
    webview: Webview,
    sessions: State<'_, Sessions>,
) -> Answer<OpenedTerminal> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let size = size(&arguments)?;
    let channel: Channel<TerminalMessage> = arguments
        .get::<String>("on_output")?
        .parse::<JavaScriptChannelId>()
        .map_err(|_| Error::field("on_output", "must be a channel"))?
        .channel_on(webview);
    let sink = sink(channel);
    let terminal_id = match arguments.get::<Option<String>>("terminal_id")? {
        None => sessions.open_terminal(id, size, sink).await?,
        Some(terminal_id) => {
            let terminal = sessions.terminal(id, &terminal_id).await?;
            terminal.attach(sink);
            terminal.resize(size).await?;
            terminal_id
        }
    };
    ok(OpenedTerminal { terminal_id })
}

#[tauri::command]
async fn write_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let terminal = sessions
        .terminal(session_id, &arguments.get::<String>("terminal_id")?)
        .await?;
    terminal
        .write(arguments.get::<String>("data")?.as_bytes())
        .await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn resize_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let terminal = sessions
        .terminal(session_id, &arguments.get::<String>("terminal_id")?)
        .await?;
    terminal.resize(size(&arguments)?).await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn ack_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let terminal = sessions
        .terminal(session_id, &arguments.get::<String>("terminal_id")?)
        .await?;
    terminal.acknowledge(arguments.get("bytes")?);
    ok(Done { session_id })
}

#[tauri::command]
async fn close_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    sessions
        .close_terminal(session_id, &arguments.get::<String>("terminal_id")?)
        .await?;
    ok(Done { session_id })
}

fn size(arguments: &Arguments<'_>) -> Result<Size, Error> {
    Ok(Size {
        cols: arguments.get("cols")?,
        rows: arguments.get("rows")?,
    })
}

/// What goes over a terminal's channel: raw bytes, and at the end one JSON object. Both in one
/// channel, so that the end cannot overtake the last bytes.
struct TerminalMessage(Output);

impl IpcResponse for TerminalMessage {
    fn body(self) -> tauri::Result<InvokeResponseBody> {
        Ok(match self.0 {
            Output::Bytes(bytes) => InvokeResponseBody::Raw(bytes),
            Output::Exit { code, message } => InvokeResponseBody::Json(
                json!({ "exit": { "code": code, "message": message } }).to_string(),
            ),
        })
    }
}

fn sink(channel: Channel<TerminalMessage>) -> Sink {
    Box::new(move |output| {
        if let Err(error) = channel.send(TerminalMessage(output)) {
            log::warn!("terminal output did not reach the window: {error}");
        }
    })
}
