//! Finding and searching in a session on a real engine: what is found, what is refused, and the end of it.

use std::sync::Arc;
use std::time::Duration;

use cove_core::error::{Error, ErrorCode};
use cove_core::search::{Globs, NameQuery, SearchEnd, SearchNews, TextQuery};
use cove_core::session::SessionId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::App;

const LONG_ENOUGH: Duration = Duration::from_secs(60);

pub(crate) fn name(text: &str) -> NameQuery {
    NameQuery {
        text: text.to_owned(),
        limit: None,
        fresh: true,
        partial: false,
    }
}

pub(crate) fn text(text: &str) -> TextQuery {
    TextQuery {
        text: text.to_owned(),
        ..TextQuery::default()
    }
}

pub(crate) async fn begin(
    app: &App,
    id: SessionId,
    query: TextQuery,
) -> Result<(String, mpsc::UnboundedReceiver<SearchNews>), Error> {
    let (told, heard) = mpsc::unbounded_channel();
    let sink = Box::new(move |news| drop(told.send(news)));
    let search_id = app.session(id).await.search_files(query, sink).await?;
    Ok((search_id, heard))
}

/// Hears a search to its end: `path:line` of each line, sorted, and how it ended.
pub(crate) async fn hear(
    mut heard: mpsc::UnboundedReceiver<SearchNews>,
) -> (Vec<String>, SearchEnd) {
    let mut found = Vec::new();
    loop {
        match timeout(LONG_ENOUGH, heard.recv()).await.unwrap().unwrap() {
            SearchNews::Files(files) => {
                for file in files {
                    let lines = file.lines.iter();
                    found.extend(lines.map(|line| format!("{}:{}", file.path, line.number)));
                }
            }
            SearchNews::End(end) => {
                found.sort();
                assert_eq!(heard.recv().await, None, "something comes behind the end");
                return (found, end);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_texts_are_found_and_nothing_outside_is() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace && mkdir -p src build && echo 'needle one' > src/main.rs && echo needle > build/out && \
         echo build > .gitignore && printf 'x\\nneedle\\n' > .hidden && ln -s /etc/passwd passwd && ln -s /etc etc && \
         ln -s / root && mkfifo needle.pipe && ln -s src/main.rs link.rs",
    );
    let found = app
        .session(id)
        .await
        .find_files(&name("main"))
        .await
        .unwrap();
    assert!(found.settled && !found.truncated);
    let paths: Vec<_> = found.entries.iter().map(|entry| &*entry.path).collect();
    assert_eq!(paths, ["/workspace/src/main.rs"]);
    assert_eq!(found.entries[0].name_marks, [(0, 4)]);
    for outside in ["passwd", "hostname", "needle.pipe"] {
        let found = app
            .session(id)
            .await
            .find_files(&name(outside))
            .await
            .unwrap();
        assert_eq!(found.entries, [], "{outside}");
    }
    let found = app
        .session(id)
        .await
        .find_files(&name("link out"))
        .await
        .unwrap();
    assert_eq!(found.total, 0);
    let found = app
        .session(id)
        .await
        .find_files(&name("out"))
        .await
        .unwrap();
    assert!(found.entries[0].ignored, "{found:?}");

    let (_, heard) = begin(&app, id, text("NEEDLE")).await.unwrap();
    let (lines, end) = hear(heard).await;
    assert_eq!(lines, ["/workspace/.hidden:2", "/workspace/src/main.rs:1"]);
    assert_eq!(
        (end.matches, end.truncated, end.cancelled),
        (2, false, false)
    );
    assert_eq!(end.error, None);
    let (_, heard) = begin(&app, id, text("root:")).await.unwrap();
    assert_eq!(hear(heard).await.0, [""; 0], "of /etc/passwd");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_for_is_refused_with_its_field() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let check = async |query: TextQuery, field: &str, problem: &str| {
        let report = begin(&app, id, query).await.unwrap_err().report();
        assert_eq!(report.error, ErrorCode::ValidationError);
        let found = report.details["fields"][field].as_str().unwrap_or_default();
        assert!(found.contains(problem), "{report:?}");
    };
    let regex = TextQuery {
        regex: true,
        ..text("a[")
    };
    check(regex, "query", "is not a regular expression: unclosed").await;
    check(text(""), "query", "must not be empty").await;
    let include = TextQuery {
        include: Some(Globs::Typed("{a".to_owned())),
        ..text("a")
    };
    check(include, "include", "is no glob").await;
    let exclude = TextQuery {
        exclude: Some(Globs::Listed(vec!["[".to_owned()])),
        ..text("a")
    };
    check(exclude, "exclude", "is no glob").await;

    app.sessions.stop(id).await.unwrap();
    let refused = app.sessions.ready(id).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::SessionNotReady);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_when_it_is_cancelled_and_the_agent_with_it() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // Holes of this size take minutes to read, and are text to a search: they begin with a line.
    app.sh(
        id,
        "cd /workspace && echo needle > a && tr '\\0' x < /dev/zero | fold -w 100 | head -c 3000000 > line && \
         for n in $(seq 40); do mkdir d$n && for m in $(seq 8); do cp line d$n/$m; done; done",
    );
    let (search_id, heard) = begin(&app, id, text("q")).await.unwrap();
    app.connected(id).await.cancel_search(&search_id);
    let (lines, end) = hear(heard).await;
    assert!(end.cancelled && end.error.is_none(), "{end:?}");
    assert_eq!(lines, [""; 0]);
    // Again, and one that there never was.
    app.connected(id).await.cancel_search(&search_id);
    app.connected(id).await.cancel_search("none");

    // More at once than there may be: the oldest makes room, and all come to an end.
    let mut searches = Vec::new();
    for _ in 0..6 {
        searches.push(begin(&app, id, text("q")).await.unwrap().1);
    }
    let last = searches.pop().unwrap();
    let mut cancelled = 0;
    for heard in searches {
        cancelled += u32::from(hear(heard).await.1.cancelled);
    }
    assert!(cancelled >= 3, "{cancelled} made room");
    let (_, end) = hear(last).await;
    assert!(!end.cancelled && end.error.is_none(), "{end:?}");
    assert_eq!(end.searched, 322);
    // Files are usable as ever.
    let listed = app.session(id).await.list_dir("/workspace").await.unwrap();
    assert_eq!(listed.entries.len(), 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_in_a_session_that_is_stopped_says_that_it_is_not_whole() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        "cd /workspace && tr '\\0' x < /dev/zero | fold -w 100 | head -c 3000000 > line && \
         for n in $(seq 200); do cp line $n; done",
    );
    let query = Arc::new(TextQuery {
        regex: true,
        // Long to search: no letter of it is in the files, and none can be skipped.
        ..text(r"(?:[a-z]{2,40}[^x]){3}q")
    });
    let (_, heard) = begin(&app, id, (*query).clone()).await.unwrap();
    app.sessions.stop_now(id).await.unwrap();
    let (_, end) = hear(heard).await;
    assert!(end.error.is_some() && !end.cancelled, "{end:?}");
}
