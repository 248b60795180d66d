//! The commands: one thin function each. Arguments are checked, the registry is called, the answer is
//! wrapped; nothing is decided here.

use cove_core::container_log::LogText;
use cove_core::drafts::Draft;
use cove_core::engine::{EngineId, EngineView, ImageView};
use cove_core::error::Error;
use cove_core::event::Phase;
use cove_core::figures::Figures;
use cove_core::files::{DirContent, Encoding, FileContent, NewContent, NewPlace, WriteIf};
use cove_core::processes::ProcessesEnded;
use cove_core::search::{FoundFiles, NameQuery, SearchNews, SearchSink, TextQuery};
use cove_core::session::{
    ChosenArchive, Listing, LocalPlace, PortList, Seen, SessionId, SessionState, SessionStatus,
    Usage,
};
use cove_core::sessions::{Sessions, WatchId, WatchSink, Watching};
use cove_core::settings::{EngineBounds, Settings};
use cove_core::template::{self, TemplateCard};
use cove_core::terminal::tabs::TerminalList;
use cove_core::terminal::{Begins, Opening, Output, Sink, Size};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tauri::ipc::{Channel, Invoke, InvokeResponseBody, IpcResponse, JavaScriptChannelId, Request};
use tauri::{AppHandle, State, Webview, Wry};
use tauri_plugin_opener::OpenerExt;

use crate::archives::{self, Archives};
use crate::ipc::{Answer, Arguments, WireError, ok};
use crate::transfers::{self, Dropped};
use crate::{leaving, notifying, settings};

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
    restart_session,
    rename_session,
    rebuild_session,
    duplicate_session,
    discard_session,
    forget_session,
    delete_session,
    session_usage,
    export_session,
    cancel_export,
    session_stats,
    read_log,
    ack_log,
    end_watch,
    dismiss_note,
    end_processes,
    keep_session,
    notify_user,
    choose_archive,
    list_sessions,
    list_templates,
    list_images,
    engine_status,
    select_engine,
    read_settings,
    write_settings,
    leave_app,
    list_dir,
    read_file,
    write_file,
    create_entry,
    move_entry,
    copy_entry,
    delete_entries,
    restore_entries,
    find_files,
    search_files,
    cancel_search,
    watch_dirs,
    upload_files,
    upload_dropped,
    download_entries,
    answer_transfer,
    retry_transfer,
    cancel_transfer,
    keep_draft,
    read_drafts,
    drop_draft,
    open_terminal,
    write_terminal,
    resize_terminal,
    ack_terminal,
    terminal_programs,
    close_terminal,
    list_ports,
    forward_port,
    unforward_port,
    open_port,
    list_terminals,
    arrange_terminals,
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

/// Says which session was meant, and what has become of it.
#[derive(Serialize)]
struct Became {
    session_id: SessionId,
    #[serde(flatten)]
    seen: Seen,
}

/// Says which session was meant, what it is now, and where its run is.
#[derive(Serialize)]
struct Acted {
    session_id: SessionId,
    state: SessionState,
    phase: Phase,
    #[serde(flatten)]
    seen: Seen,
}

impl From<SessionStatus> for Acted {
    fn from(status: SessionStatus) -> Self {
        Self {
            session_id: status.session_id,
            state: status.state,
            phase: status.phase,
            seen: Seen {
                seq: status.seq,
                session: Some(status.session),
            },
        }
    }
}

#[derive(Serialize)]
struct Created {
    session_id: SessionId,
    phase: Phase,
    message: &'static str,
    #[serde(flatten)]
    seen: Seen,
}

impl Created {
    fn of(session_id: SessionId, sessions: &Sessions) -> Self {
        Self {
            session_id,
            phase: Phase::Starting,
            message: "Starting",
            seen: sessions.seen(session_id),
        }
    }
}

#[tauri::command]
async fn create_session(
    request: Request<'_>,
    archives: State<'_, Archives>,
    sessions: State<'_, Sessions>,
) -> Answer<Created> {
    let mut wanted = Arguments::of(request.body()).value("request").clone();
    let source = archives.source(&mut wanted)?;
    let session_id = sessions.create_from(&wanted, source)?;
    ok(Created::of(session_id, &sessions))
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
async fn stop_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    if arguments.get::<Option<bool>>("now")? == Some(true) {
        sessions.stop_now(session_id).await?;
    } else {
        sessions.stop(session_id).await?;
    }
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

#[tauri::command]
async fn restart_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Acted> {
    ok(sessions
        .restart(Arguments::of(request.body()).id()?)
        .await?
        .into())
}

#[derive(Serialize)]
struct Renamed {
    session_id: SessionId,
    name: String,
    #[serde(flatten)]
    seen: Seen,
}

#[tauri::command]
async fn rename_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Renamed> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let name = arguments.get::<String>("name")?;
    let name = sessions.rename(session_id, &name).await?;
    ok(Renamed {
        session_id,
        name,
        seen: sessions.seen(session_id),
    })
}

#[tauri::command]
async fn rebuild_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Acted> {
    let arguments = Arguments::of(request.body());
    let (id, image) = (arguments.id()?, arguments.get::<Option<String>>("image")?);
    let privilege_gain = arguments.get::<Option<bool>>("allow_privilege_gain")?;
    let rebuilt = sessions.rebuild_allowing(id, image.as_deref(), privilege_gain);
    ok(rebuilt.await?.into())
}

#[tauri::command]
async fn duplicate_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Created> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let name = arguments.get::<Option<String>>("project_name")?;
    let session_id = sessions.duplicate(id, name.as_deref()).await?;
    ok(Created::of(session_id, &sessions))
}

#[tauri::command]
async fn discard_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.discard(session_id).await?;
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

#[tauri::command]
async fn forget_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.forget(session_id).await?;
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

#[tauri::command]
async fn delete_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    if arguments.get::<Option<bool>>("keep_volume")? == Some(true) {
        sessions.delete_container(session_id).await?;
    } else {
        sessions.delete(session_id).await?;
    }
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

#[derive(Serialize)]
struct UsageAnswer {
    usage: Usage,
}

#[tauri::command]
async fn session_usage(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<UsageAnswer> {
    ok(UsageAnswer {
        usage: sessions.usage(Arguments::of(request.body()).id()?).await?,
    })
}

#[derive(Serialize)]
struct StatsAnswer {
    /// Names the watch, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_id: Option<WatchId>,
    #[serde(flatten)]
    figures: Figures,
}

/// Tells what a session uses now; with a channel, also what it uses from then on, until `end_watch`.
#[tauri::command]
async fn session_stats(
    request: Request<'_>,
    webview: Webview,
    sessions: State<'_, Sessions>,
) -> Answer<StatsAnswer> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    ok(match channel_or_none(&arguments, "on_figures", webview)? {
        None => StatsAnswer {
            watch_id: None,
            figures: sessions.figures(id).await?,
        },
        Some(channel) => {
            let (watch_id, figures) = sessions.watch_figures(id, watch_sink(channel)).await?;
            StatsAnswer {
                watch_id: Some(watch_id),
                figures,
            }
        }
    })
}

#[derive(Serialize)]
struct LogAnswer {
    /// Names the watch, where there is one. Its text comes over the channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_id: Option<WatchId>,
    #[serde(flatten)]
    log: LogText,
}

/// Reads the end of a container's log; with a channel, also what is printed from then on, until `end_watch`.
#[tauri::command]
async fn read_log(
    request: Request<'_>,
    webview: Webview,
    sessions: State<'_, Sessions>,
) -> Answer<LogAnswer> {
    let arguments = Arguments::of(request.body());
    let (id, tail) = (arguments.id()?, arguments.get("tail")?);
    ok(match channel_or_none(&arguments, "on_log", webview)? {
        None => LogAnswer {
            watch_id: None,
            log: sessions.read_log(id, tail).await?,
        },
        Some(channel) => LogAnswer {
            watch_id: Some(sessions.watch_log(id, tail, watch_sink(channel)).await?),
            log: LogText::default(),
        },
    })
}

#[derive(Serialize)]
struct Heard {}

/// Says that a piece of a log is on the screen: the next may come.
#[tauri::command]
async fn ack_log(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Heard> {
    sessions.acknowledge_log(Arguments::of(request.body()).get("watch_id")?);
    ok(Heard {})
}

/// Ends a watch. Succeeds when it is over already.
#[tauri::command]
async fn end_watch(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Heard> {
    sessions.end_watch(Arguments::of(request.body()).get("watch_id")?);
    ok(Heard {})
}

/// Takes note that the user knows that a session's memory was used up.
#[tauri::command]
async fn dismiss_note(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.dismiss_note(session_id).await?;
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

fn watch_sink<T: Serialize + Send + Sync + 'static>(channel: Channel<T>) -> WatchSink<T> {
    Box::new(move |news| {
        if let Err(error) = channel.send(news) {
            log::warn!("what is watched did not reach the window: {error}");
        }
    })
}

#[derive(Serialize)]
struct EndedAnswer {
    session_id: SessionId,
    #[serde(flatten)]
    processes: ProcessesEnded,
}

#[tauri::command]
async fn end_processes(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<EndedAnswer> {
    let session_id = Arguments::of(request.body()).id()?;
    ok(EndedAnswer {
        session_id,
        processes: sessions.ready(session_id).await?.end_processes().await?,
    })
}

#[tauri::command]
async fn keep_session(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Became> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.connected(session_id).await?;
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

/// Tells a user who is in another window that a program of the session waits.
#[tauri::command]
async fn notify_user(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<Became> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let notice: Option<String> = arguments.get("notice")?;
    let name = sessions.status(session_id).await?.session.name;
    notifying::show(&app, &name, notice.as_deref());
    ok(Became {
        session_id,
        seen: sessions.seen(session_id),
    })
}

#[derive(Serialize)]
struct Export {
    session_id: SessionId,
    started: bool,
    #[serde(flatten)]
    seen: Seen,
}

#[tauri::command]
async fn export_session(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<Export> {
    let session_id = Arguments::of(request.body()).id()?;
    // A session that is not there is said before the user is asked for a place.
    let status = sessions.status(session_id).await?;
    let place = archives::place_for(&app, &status.session.name).await?;
    let started = place.is_some();
    if let Some(path) = place {
        sessions.export(session_id, path).await?;
    }
    ok(Export {
        session_id,
        started,
        seen: sessions.seen(session_id),
    })
}

#[tauri::command]
async fn cancel_export(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let session_id = Arguments::of(request.body()).id()?;
    sessions.cancel_export(session_id).await?;
    ok(Done { session_id })
}

#[derive(Serialize)]
struct Chosen {
    archive: Option<ChosenArchive>,
}

#[tauri::command]
async fn choose_archive(app: AppHandle, archives: State<'_, Archives>) -> Answer<Chosen> {
    ok(Chosen {
        archive: archives.choose(&app).await?,
    })
}

#[derive(Serialize)]
struct Left {}

#[tauri::command]
async fn leave_app(request: Request<'_>, app: AppHandle) -> Answer<Left> {
    let choice = Arguments::of(request.body()).get("choice")?;
    leaving::leave(&app, choice);
    ok(Left {})
}

#[tauri::command]
async fn list_sessions(sessions: State<'_, Sessions>) -> Answer<Listing> {
    ok(sessions.listing().await)
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

#[tauri::command]
async fn select_engine(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<EngineList> {
    let engine_id = Arguments::of(request.body()).get::<EngineId>("engine_id")?;
    ok(EngineList {
        engines: sessions.select_engine(&engine_id).await?,
    })
}

#[derive(Serialize)]
struct SettingsAnswer {
    settings: Settings,
}

#[derive(Serialize)]
struct SettingsAndBounds {
    settings: Settings,
    engine: Option<EngineBounds>,
}

#[tauri::command]
async fn read_settings(sessions: State<'_, Sessions>) -> Answer<SettingsAndBounds> {
    ok(SettingsAndBounds {
        settings: sessions.settings(),
        engine: sessions.engine_bounds().await,
    })
}

#[tauri::command]
async fn write_settings(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<SettingsAnswer> {
    let settings = Arguments::of(request.body()).get("settings")?;
    let settings = sessions.change_settings(settings).await?;
    let saved = tauri::async_runtime::spawn_blocking(move || settings::save(&app, settings)).await;
    saved.map_err(|error| Error::Internal(format!("failed to save the settings: {error}")))??;
    ok(SettingsAnswer { settings })
}

#[tauri::command]
async fn list_dir(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<DirContent> {
    let arguments = Arguments::of(request.body());
    ok(sessions
        .ready(arguments.id()?)
        .await?
        .list_dir(&arguments.get::<String>("path")?)
        .await?)
}

#[tauri::command]
async fn read_file(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<FileContent> {
    let arguments = Arguments::of(request.body());
    let (id, path) = (arguments.id()?, arguments.get::<String>("path")?);
    let charset = arguments.get::<Option<String>>("charset")?;
    ok(sessions
        .ready(id)
        .await?
        .read_file_as(&path, charset.as_deref())
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
    let content = NewContent {
        content: arguments.get("content")?,
        encoding: arguments.get("encoding")?,
        charset: arguments.get("charset")?,
    };
    let missing = arguments.get::<Option<bool>>("missing")?;
    let condition = WriteIf::of(arguments.get("revision")?, missing == Some(true))?;
    ok(Written {
        revision: sessions
            .ready(id)
            .await?
            .write_file_if(&path, content, condition)
            .await?,
    })
}

/// Says where an entry has come to be.
#[derive(Serialize)]
struct Placed {
    path: String,
}

#[tauri::command]
async fn create_entry(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Placed> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let (place, kind) = (place(&arguments, "path")?, arguments.get("kind")?);
    ok(Placed {
        path: sessions.ready(id).await?.create_entry(place, kind).await?,
    })
}

#[tauri::command]
async fn move_entry(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Placed> {
    let arguments = Arguments::of(request.body());
    let (id, from) = (arguments.id()?, arguments.get::<String>("from")?);
    let to = place(&arguments, "to")?;
    ok(Placed {
        path: sessions.ready(id).await?.move_entry(&from, to).await?,
    })
}

#[tauri::command]
async fn copy_entry(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Placed> {
    let arguments = Arguments::of(request.body());
    let (id, from) = (arguments.id()?, arguments.get::<String>("from")?);
    let to = place(&arguments, "to")?;
    let or_like_it = arguments.get::<Option<bool>>("or_like_it")? == Some(true);
    ok(Placed {
        path: sessions
            .ready(id)
            .await?
            .copy_entry(&from, to, or_like_it)
            .await?,
    })
}

#[derive(Serialize)]
struct Trashed {
    trash: String,
}

#[tauri::command]
async fn delete_entries(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Trashed> {
    let arguments = Arguments::of(request.body());
    let (id, paths) = (arguments.id()?, arguments.get("paths")?);
    ok(Trashed {
        trash: sessions.ready(id).await?.delete_entries(paths).await?,
    })
}

#[tauri::command]
async fn restore_entries(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let (session_id, trash) = (arguments.id()?, arguments.get("trash")?);
    sessions
        .ready(session_id)
        .await?
        .restore_entries(trash)
        .await?;
    ok(Done { session_id })
}

/// Returns where a new entry is to be: at the path `whole`, or in the folder `into`, with a `name` or the one it has.
fn place(arguments: &Arguments<'_>, whole: &str) -> Result<NewPlace, Error> {
    let Some(directory) = arguments.get::<Option<String>>("into")? else {
        return Ok(NewPlace::At(arguments.get(whole)?));
    };
    Ok(match arguments.get::<Option<String>>("name")? {
        Some(name) => NewPlace::Named { directory, name },
        None => NewPlace::In(directory),
    })
}

/// Names are read anew unless `fresh` is false; `partial` takes an answer before all are read.
#[tauri::command]
async fn find_files(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<FoundFiles> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let query = NameQuery {
        text: arguments.get("query")?,
        limit: arguments.get("limit")?,
        fresh: arguments.get::<Option<bool>>("fresh")? != Some(false),
        partial: arguments.get::<Option<bool>>("partial")? == Some(true),
    };
    ok(sessions.ready(id).await?.find_files(&query).await?)
}

#[derive(Serialize)]
struct Search {
    search_id: String,
}

#[tauri::command]
async fn search_files(
    request: Request<'_>,
    webview: Webview,
    sessions: State<'_, Sessions>,
) -> Answer<Search> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let is_set = |name: &str| Ok::<_, Error>(arguments.get::<Option<bool>>(name)? == Some(true));
    let query = TextQuery {
        text: arguments.get("query")?,
        regex: is_set("regex")?,
        case: is_set("case")?,
        word: is_set("word")?,
        include: arguments.get("include")?,
        exclude: arguments.get("exclude")?,
        ignored: is_set("ignored")?,
    };
    let channel: Channel<SearchNews> = channel(&arguments, "on_match", webview)?;
    let sink: SearchSink = Box::new(move |news| {
        if let Err(error) = channel.send(news) {
            log::warn!("what was found did not reach the window: {error}");
        }
    });
    ok(Search {
        search_id: sessions.ready(id).await?.search_files(query, sink).await?,
    })
}

#[tauri::command]
async fn cancel_search(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let search_id = arguments.get::<String>("search_id")?;
    sessions
        .connected(session_id)
        .await?
        .cancel_search(&search_id);
    ok(Done { session_id })
}

/// `files:changed` tells from then on what of these changes, and of nothing else.
#[tauri::command]
async fn watch_dirs(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Watching> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    ok(sessions.watch_dirs(id, arguments.get("paths")?).await?)
}

/// Says which transfer has begun, if one has.
#[derive(Serialize)]
struct Transfer {
    transfer_id: Option<String>,
}

#[tauri::command]
async fn upload_files(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<Transfer> {
    let arguments = Arguments::of(request.body());
    let (id, folder) = (arguments.id()?, arguments.get("folder")?);
    let wanted = arguments.get("wanted")?;
    // A session that is not ready is said before the user is asked.
    sessions.connected(id).await?;
    let chosen = transfers::choose(&app, wanted).await?;
    let transfer_id = if chosen.is_empty() {
        None
    } else {
        Some(sessions.ready(id).await?.upload(folder, &chosen)?)
    };
    ok(Transfer { transfer_id })
}

#[tauri::command]
async fn upload_dropped(
    request: Request<'_>,
    dropped: State<'_, Dropped>,
    sessions: State<'_, Sessions>,
) -> Answer<Transfer> {
    let arguments = Arguments::of(request.body());
    let (id, folder) = (arguments.id()?, arguments.get("folder")?);
    let chosen = dropped.take(&arguments.get::<String>("dropped")?)?;
    ok(Transfer {
        transfer_id: Some(sessions.ready(id).await?.upload(folder, &chosen)?),
    })
}

/// With a `file_name`, what is downloaded is a file, whose place and name the user chooses.
#[tauri::command]
async fn download_entries(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<Transfer> {
    let arguments = Arguments::of(request.body());
    let (id, paths) = (arguments.id()?, arguments.get("paths")?);
    let file_name = arguments.get("file_name")?;
    sessions.connected(id).await?;
    let transfer_id = match transfers::place_for(&app, file_name).await? {
        None => None,
        Some(place) => Some(sessions.ready(id).await?.download(paths, place)?),
    };
    ok(Transfer { transfer_id })
}

#[tauri::command]
async fn answer_transfer(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Transfer> {
    let arguments = Arguments::of(request.body());
    let (id, transfer) = (arguments.id()?, arguments.get::<String>("transfer_id")?);
    let choice = arguments.get("choice")?;
    ok(Transfer {
        transfer_id: sessions
            .ready(id)
            .await?
            .answer_transfer(&transfer, choice)?,
    })
}

#[tauri::command]
async fn retry_transfer(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Transfer> {
    let arguments = Arguments::of(request.body());
    let (id, transfer) = (arguments.id()?, arguments.get::<String>("transfer_id")?);
    ok(Transfer {
        transfer_id: Some(sessions.ready(id).await?.retry_transfer(&transfer)?),
    })
}

#[tauri::command]
async fn cancel_transfer(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let transfer = arguments.get::<String>("transfer_id")?;
    sessions.cancel_transfer(session_id, &transfer).await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn keep_draft(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    sessions
        .keep_draft(session_id, arguments.get::<Draft>("draft")?)
        .await?;
    ok(Done { session_id })
}

#[derive(Serialize)]
struct DraftList {
    drafts: Vec<Draft>,
}

#[tauri::command]
async fn read_drafts(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<DraftList> {
    ok(DraftList {
        drafts: sessions.drafts(Arguments::of(request.body()).id()?).await?,
    })
}

#[tauri::command]
async fn drop_draft(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    sessions
        .drop_draft(session_id, arguments.get("path")?)
        .await?;
    ok(Done { session_id })
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
    let sink = sink(channel(&arguments, "on_output", webview)?);
    let terminal_id = match arguments.get::<Option<String>>("terminal_id")? {
        None => {
            let folder = arguments.get::<Option<String>>("folder")?;
            let like = arguments.get::<Option<String>>("like")?;
            let opening = Opening {
                replaces: arguments.get("replaces")?,
                begins: folder
                    .map(|path| Begins::At { path })
                    .or(like.map(|id| Begins::Like { id })),
            };
            let session = sessions.ready(id).await?;
            session.open_terminal_as(opening, size, sink).await?
        }
        Some(terminal_id) => {
            sessions
                .connected(id)
                .await?
                .attach_terminal(&terminal_id, size, sink)
                .await?;
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
        .connected(session_id)
        .await?
        .terminal(&arguments.get::<String>("terminal_id")?)?;
    let encoding = arguments.get::<Option<Encoding>>("encoding")?;
    let data = arguments.get::<String>("data")?;
    let bytes = encoding.unwrap_or(Encoding::Utf8).bytes_of("data", data)?;
    terminal.write(&bytes).await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn resize_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let terminal = sessions
        .connected(session_id)
        .await?
        .terminal(&arguments.get::<String>("terminal_id")?)?;
    terminal.resize(size(&arguments)?).await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn ack_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    let terminal = sessions
        .connected(session_id)
        .await?
        .terminal(&arguments.get::<String>("terminal_id")?)?;
    terminal.acknowledge(arguments.get("bytes")?);
    ok(Done { session_id })
}

#[derive(Serialize)]
struct Programs {
    programs: Vec<String>,
}

#[tauri::command]
async fn terminal_programs(
    request: Request<'_>,
    sessions: State<'_, Sessions>,
) -> Answer<Programs> {
    let arguments = Arguments::of(request.body());
    let id = arguments.id()?;
    let terminal_id = arguments.get::<String>("terminal_id")?;
    let programs = sessions
        .ready(id)
        .await?
        .terminal_programs(&terminal_id)
        .await?;
    ok(Programs { programs })
}

#[tauri::command]
async fn close_terminal(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    sessions
        .connected(session_id)
        .await?
        .close_terminal(&arguments.get::<String>("terminal_id")?);
    ok(Done { session_id })
}

#[tauri::command]
async fn list_terminals(
    request: Request<'_>,
    sessions: State<'_, Sessions>,
) -> Answer<TerminalList> {
    ok(sessions
        .connected(Arguments::of(request.body()).id()?)
        .await?
        .list_terminals())
}

#[tauri::command]
async fn arrange_terminals(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let session_id = arguments.id()?;
    sessions
        .connected(session_id)
        .await?
        .arrange_terminals(arguments.get("tabs")?)
        .await?;
    ok(Done { session_id })
}

#[tauri::command]
async fn list_ports(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<PortList> {
    ok(sessions
        .ready(Arguments::of(request.body()).id()?)
        .await?
        .list_ports())
}

#[tauri::command]
async fn forward_port(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<PortList> {
    let arguments = Arguments::of(request.body());
    let (id, port) = (arguments.id()?, arguments.get("port")?);
    let local_port = arguments.get("local_port")?;
    ok(sessions.ready(id).await?.forward_port(port, local_port)?)
}

#[tauri::command]
async fn unforward_port(request: Request<'_>, sessions: State<'_, Sessions>) -> Answer<PortList> {
    let arguments = Arguments::of(request.body());
    let (id, port) = (arguments.id()?, arguments.get("port")?);
    ok(sessions.connected(id).await?.unforward_port(port).await)
}

/// Shows a port in the user's browser; one that is not forwarded is from now on.
#[tauri::command]
async fn open_port(
    request: Request<'_>,
    app: AppHandle,
    sessions: State<'_, Sessions>,
) -> Answer<Done> {
    let arguments = Arguments::of(request.body());
    let (session_id, port) = (arguments.id()?, arguments.get("port")?);
    let LocalPlace { host, port } = sessions.ready(session_id).await?.place_of_port(port)?;
    let address = format!("http://{host}:{port}");
    let opened = app.opener().open_url(&address, None::<&str>);
    opened.map_err(|error| Error::NotOpened {
        address,
        message: error.to_string(),
    })?;
    ok(Done { session_id })
}

/// Returns the channel that an argument names, if it is there.
fn channel_or_none<T>(
    arguments: &Arguments<'_>,
    name: &str,
    webview: Webview,
) -> Result<Option<Channel<T>>, Error> {
    match arguments.get::<Option<IgnoredAny>>(name)? {
        Some(_) => channel(arguments, name, webview).map(Some),
        None => Ok(None),
    }
}

/// Returns the channel that an argument names.
fn channel<T>(
    arguments: &Arguments<'_>,
    name: &str,
    webview: Webview,
) -> Result<Channel<T>, Error> {
    let id = arguments
        .get::<String>(name)?
        .parse::<JavaScriptChannelId>();
    let id = id.map_err(|_| Error::field(name, "must be a channel"))?;
    Ok(id.channel_on(webview))
}

fn size(arguments: &Arguments<'_>) -> Result<Size, Error> {
    Ok(Size {
        cols: arguments.get("cols")?,
        rows: arguments.get("rows")?,
    })
}

/// What goes over a terminal's channel: raw bytes, JSON objects between them where the window pauses or what
/// was shown before ends, and one at the end.
/// All in one channel, so that none overtakes another.
struct TerminalMessage(Output);

impl IpcResponse for TerminalMessage {
    fn body(self) -> tauri::Result<InvokeResponseBody> {
        Ok(match self.0 {
            Output::Bytes(bytes) => InvokeResponseBody::Raw(bytes),
            Output::Pause => InvokeResponseBody::Json(r#"{"pause":true}"#.to_owned()),
            Output::Replayed => InvokeResponseBody::Json(r#"{"replayed":true}"#.to_owned()),
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
