//! Finding files by their names and searching in them, as the agent in the container does it.
//!
//! What is asked is checked here before anybody is asked. What answers may be anything that runs in the container: it is
//! held against what was asked, and no more of it is passed on than a search may find.

use cove_agent::path::{ROOT, WorkspacePath, display_name};
use cove_agent::protocol::{Call, CallError, Failure, Reply};
use cove_agent::search::{
    self, LONGEST_LINE, LONGEST_NAME, MOST_LINES, MOST_MATCHES, MOST_NAMES, MOST_ON_LINE, Part,
    Problem, Query, Searched, split_globs,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use crate::connection::{Answers, CallFailure, Connection};
use crate::error::{Error, ErrorReport};
use crate::words;

/// How many names are answered unless another number is asked for.
const NAMES: u32 = 100;
/// How long the agent may read names before it answers with what it has.
const PATIENCE: Duration = Duration::from_millis(40);
/// How long it may when all are wanted, in one call.
const STEP: Duration = Duration::from_secs(1);
/// How long all names are waited for.
const ALL_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of a path; each byte of one in Linux takes at most five.
const LONGEST_PATH: usize = 5 * 4_096 + 64;
/// The most bytes of all that one search tells.
const MOST_BYTES: usize = 16 << 20;
/// The most searches of a session at the same time; one more ends the oldest.
pub(crate) const MOST_SEARCHES: usize = 3;

/// What is typed of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameQuery {
    /// The letters, in order; words may come in any order.
    pub text: String,
    /// The most names, 100 without it and at most 500.
    pub limit: Option<u32>,
    /// Whether names do not count that were read before, but for a few seconds.
    pub fresh: bool,
    /// Whether an answer from some of the names is good enough for now.
    pub partial: bool,
}

/// Files with names like what was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FoundFiles {
    /// The best first.
    pub entries: Vec<FoundName>,
    /// How many files there are like it.
    pub total: u64,
    /// Whether there are more than `entries`.
    pub truncated: bool,
    /// Whether all names have been read; if not, the same question finds more a moment later.
    pub settled: bool,
}

/// A file with a name like what was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FoundName {
    /// The name for display; bytes that are not UTF-8 show as U+FFFD.
    pub name: String,
    /// The path to pass back; opaque.
    pub path: String,
    /// The folder below `/workspace`, for display; empty for that itself.
    pub folder: String,
    /// Where what was typed is in the name, in UTF-16 units.
    pub name_marks: Vec<(u32, u32)>,
    /// Where it is in the folder.
    pub folder_marks: Vec<(u32, u32)>,
    /// Whether `.gitignore` or `.ignore` names it.
    pub ignored: bool,
}

/// Globs as one types them, with commas between, or one by one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Globs {
    /// With commas.
    Typed(String),
    /// One by one.
    Listed(Vec<String>),
}

impl Globs {
    fn list(globs: Option<Self>) -> Vec<String> {
        match globs {
            None => Vec::new(),
            Some(Self::Typed(text)) => split_globs(&text),
            Some(Self::Listed(globs)) => globs,
        }
    }
}

/// What is searched for in files.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextQuery {
    /// The text or regular expression.
    pub text: String,
    /// Whether it is a regular expression.
    pub regex: bool,
    /// Whether capitals are told from small letters.
    pub case: bool,
    /// Whether only whole words count.
    pub word: bool,
    /// Only what matches one of these is searched, if there are any.
    pub include: Option<Globs>,
    /// What matches one of these is not searched.
    pub exclude: Option<Globs>,
    /// Whether files are searched too that `.gitignore` and `.ignore` name.
    pub ignored: bool,
}

/// What comes of a search, in this order: any number of `Files`, then the `End`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum SearchNews {
    /// Something was found in these files; more may be told of the same one.
    Files(Vec<FoundFile>),
    /// Nothing more comes.
    End(SearchEnd),
}

/// A file in which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FoundFile {
    /// The name for display; bytes that are not UTF-8 show as U+FFFD.
    pub name: String,
    /// The path to pass back; opaque.
    pub path: String,
    /// The folder below `/workspace`, for display; empty for that itself.
    pub folder: String,
    /// At least one, in order.
    pub lines: Vec<FoundLine>,
}

/// A line on which something was found. Places are in UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FoundLine {
    /// Counted from 1.
    pub number: u32,
    /// Where the first match begins on the line, counted from 0.
    pub column: u32,
    /// How long the first match is.
    pub length: u32,
    /// The line without its indentation, or what of it is around the first match.
    pub text: String,
    /// Whether something was left out before the text.
    pub cut_before: bool,
    /// Whether something was left out behind the text.
    pub cut_after: bool,
    /// Where matches begin and end in the text.
    pub marks: Vec<(u32, u32)>,
    /// Matches on the line, also where the text was cut.
    pub matches: u32,
}

/// How a search ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct SearchEnd {
    /// Files whose content was looked at.
    pub searched: u64,
    /// Matches that were told.
    pub matches: u32,
    /// Whether there may be more.
    pub truncated: bool,
    /// Files and folders that could not be read.
    pub unread: u64,
    /// Whether it was ended early because nobody wants it any more.
    pub cancelled: bool,
    /// Why it could not go on.
    pub error: Option<ErrorReport>,
}

/// Hears what comes of a search.
pub type SearchSink = Box<dyn Fn(SearchNews) + Send + Sync>;

/// Finds files by what is typed of their names.
///
/// # Errors
/// [`Error::Validation`], [`Error::AgentUnavailable`].
pub async fn find_files(agent: &Connection, query: &NameQuery) -> Result<FoundFiles, Error> {
    let limit = query.limit.unwrap_or(NAMES);
    if !(1..=MOST_NAMES).contains(&limit) {
        let problem = format!("must be from 1 to {MOST_NAMES}");
        return Err(Error::field("limit", problem));
    }
    if query.text.len() > LONGEST_NAME {
        let problem = format!("must be at most {LONGEST_NAME} bytes long");
        return Err(Error::field("query", problem));
    }
    let until = Instant::now() + ALL_LIMIT;
    let mut fresh = query.fresh;
    loop {
        let patience = if query.partial { PATIENCE } else { STEP };
        let call = Call::Find {
            query: query.text.clone(),
            limit,
            fresh,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        let answer = agent.call(call, &[]).await.map_err(refused)?;
        let (
            Reply::Find {
                names,
                total,
                settled,
                truncated,
            },
            _,
        ) = answer
        else {
            return Err(nonsense());
        };
        // What has been read by now goes on where it was.
        fresh = false;
        if !(settled || query.partial || Instant::now() >= until) {
            continue;
        }
        if names.len() > limit as usize {
            return Err(nonsense());
        }
        let entries = names
            .into_iter()
            .map(found_name)
            .collect::<Option<Vec<_>>>();
        let entries = entries.ok_or_else(nonsense)?;
        let truncated = truncated || total > entries.len() as u64;
        return Ok(FoundFiles {
            entries,
            total,
            truncated,
            settled,
        });
    }
}

/// A search that is under way. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Searching {
    answers: Answers,
    told: SearchEnd,
    bytes: usize,
}

impl Searching {
    /// Begins a search.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the `query`, `include` or `exclude` that cannot be; [`Error::AgentUnavailable`].
    pub(crate) async fn begin(agent: &Connection, query: TextQuery) -> Result<Self, Error> {
        let query = checked(query)?;
        let limit = MOST_MATCHES;
        let answers = agent.stream(Call::Search { query, limit }).await;
        Ok(Self {
            answers: answers.map_err(refused)?,
            told: SearchEnd::default(),
            bytes: 0,
        })
    }

    /// Waits for what is found next, or for the end.
    pub(crate) async fn next(&mut self) -> SearchNews {
        match self.answers.next().await {
            Some(Ok((Reply::Search { files, searched }, _))) => {
                let Some(files) = self.take(files) else {
                    return self.failed(&nonsense());
                };
                match searched {
                    // The last answer has none.
                    Some(searched) => SearchNews::End(self.over(searched)),
                    None if self.bytes > MOST_BYTES || self.told.matches > MOST_MATCHES => {
                        self.told.truncated = true;
                        SearchNews::End(self.told.clone())
                    }
                    None => SearchNews::Files(files),
                }
            }
            Some(Ok(_)) => self.failed(&nonsense()),
            Some(Err(error)) => self.failed(&refused(CallFailure::Refused(error))),
            None => self.failed(&refused(CallFailure::Broken)),
        }
    }

    /// The end of a search that nobody wants any more.
    pub(crate) fn cancelled(&self) -> SearchEnd {
        SearchEnd {
            cancelled: true,
            ..self.told.clone()
        }
    }

    fn failed(&self, error: &Error) -> SearchNews {
        SearchNews::End(SearchEnd {
            error: Some(error.report()),
            ..self.told.clone()
        })
    }

    fn over(&self, searched: Searched) -> SearchEnd {
        SearchEnd {
            searched: searched.files,
            truncated: searched.truncated,
            unread: searched.unread,
            ..self.told.clone()
        }
    }

    /// Counts what is told; `None` if no search of the agent's can have found it.
    fn take(&mut self, files: Vec<search::FoundFile>) -> Option<Vec<FoundFile>> {
        let mut taken = Vec::with_capacity(files.len());
        for search::FoundFile { path, lines } in files {
            self.bytes = self.bytes.saturating_add(path.len());
            let (name, folder) = shown(&path)?;
            if lines.is_empty() || lines.len() > MOST_LINES {
                return None;
            }
            let mut found = Vec::with_capacity(lines.len());
            for line in lines {
                let line = found_line(line)?;
                self.bytes = self.bytes.saturating_add(line.text.len());
                self.told.matches = self.told.matches.saturating_add(line.matches);
                found.push(line);
            }
            taken.push(FoundFile {
                name,
                path,
                folder,
                lines: found,
            });
        }
        Some(taken)
    }
}

/// Returns the query for the agent, if it can be searched for.
fn checked(query: TextQuery) -> Result<Query, Error> {
    let query = Query {
        text: query.text,
        regex: query.regex,
        case: query.case,
        word: query.word,
        include: Globs::list(query.include),
        exclude: Globs::list(query.exclude),
        ignored: query.ignored,
    };
    let problem = |Problem { part, message }: Problem| {
        let field = match part {
            Part::Text => "query",
            Part::Include => "include",
            Part::Exclude => "exclude",
        };
        Error::field(field, message)
    };
    query.pattern().map_err(problem)?;
    query.globs().map_err(problem)?;
    Ok(query)
}

fn found_name(found: search::FoundName) -> Option<FoundName> {
    let (name, folder) = shown(&found.path)?;
    let before = if folder.is_empty() {
        0
    } else {
        u32::try_from(folder.chars().count() + 1).ok()?
    };
    let end = before.checked_add(u32::try_from(name.chars().count()).ok()?)?;
    if !are_in_order(&found.marks, end) {
        return None;
    }
    let within = |text: &str, from: u32, to: u32| {
        let parts = found
            .marks
            .iter()
            .map(|&(start, end)| (start.max(from), end.min(to)));
        let parts = parts.filter(|(start, end)| start < end);
        parts
            .map(|(start, end)| (units(text, start - from), units(text, end - from)))
            .collect::<Vec<_>>()
    };
    Some(FoundName {
        name_marks: within(&name, before, end),
        folder_marks: within(&folder, 0, before.saturating_sub(1)),
        path: found.path,
        ignored: found.ignored,
        name,
        folder,
    })
}

/// Returns how many UTF-16 units so many characters of a text are.
fn units(text: &str, characters: u32) -> u32 {
    let units = text.chars().take(characters as usize).map(char::len_utf16);
    u32::try_from(units.sum::<usize>()).unwrap_or(u32::MAX)
}

fn found_line(found: search::FoundLine) -> Option<FoundLine> {
    // Each byte may have become three of U+FFFD.
    let is_sound = found.text.len() <= 3 * LONGEST_LINE
        && found.marks.len() <= MOST_ON_LINE
        && (1..=MOST_ON_LINE).contains(&(found.matches as usize));
    let length = u32::try_from(found.text.encode_utf16().count()).ok()?;
    if !is_sound || !are_in_order(&found.marks, length) {
        return None;
    }
    Some(FoundLine {
        number: found.number,
        column: found.column,
        length: found.length,
        text: found.text,
        cut_before: found.cut_before,
        cut_after: found.cut_after,
        marks: found.marks,
        matches: found.matches,
    })
}

/// Returns whether marks are behind one another, in a text of this length.
fn are_in_order(marks: &[(u32, u32)], length: u32) -> bool {
    let mut at = 0;
    marks.iter().all(|&(start, end)| {
        let is_next = at <= start && start < end && end <= length;
        at = end;
        is_next
    })
}

/// Returns a file's name and folder for display, if the path is one of the agent's.
fn shown(path: &str) -> Option<(String, String)> {
    if path.len() > LONGEST_PATH {
        return None;
    }
    let parsed = WorkspacePath::parse(path).ok()?;
    let (name, folders) = parsed.components().split_last()?;
    if path != parsed.to_string() {
        return None;
    }
    let folders: Vec<_> = folders.iter().map(|name| display_name(name)).collect();
    Some((display_name(name), folders.join("/")))
}

fn refused(failure: CallFailure) -> Error {
    match failure {
        CallFailure::Refused(CallError { failure, message }) => match failure {
            // The agent has another version of what was checked here.
            Failure::Invalid => Error::field("query", words::tamed(&message)),
            _ => Error::FileNotUsable {
                path: ROOT.to_owned(),
                message: words::tamed(&message),
            },
        },
        failure @ (CallFailure::Broken | CallFailure::NoAnswer(_)) => failure.into_error(),
    }
}

fn nonsense() -> Error {
    Error::AgentUnavailable("it answered something else than was asked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(query: TextQuery, field: &str, problem: &str) {
        let report = checked(query).unwrap_err().report();
        assert_eq!(report.message, format!("`{field}` {problem}"));
        assert_eq!(report.details["fields"][field], problem);
    }

    #[test]
    fn what_cannot_be_searched_for_is_refused_by_its_field() {
        let regex = |text: &str| TextQuery {
            text: text.to_owned(),
            regex: true,
            ..TextQuery::default()
        };
        check_refused(
            regex("a("),
            "query",
            "is not a regular expression: unclosed group, at character 2",
        );
        check_refused(TextQuery::default(), "query", "must not be empty");
        check_refused(
            TextQuery {
                include: Some(Globs::Typed("*.rs, {a".to_owned())),
                ..regex("a")
            },
            "include",
            "holds `{a`, which is no glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)",
        );
        let listed = Globs::Listed(vec!["a,b".to_owned()]);
        let query = TextQuery {
            exclude: Some(listed),
            ..regex("a")
        };
        assert_eq!(checked(query).unwrap().exclude, ["a,b"]);
    }

    fn name(path: &str, marks: &[(u32, u32)]) -> Option<FoundName> {
        found_name(search::FoundName {
            path: path.to_owned(),
            marks: marks.to_vec(),
            ignored: false,
        })
    }

    #[test]
    fn marks_are_told_of_name_and_folder_in_the_units_of_the_window() {
        let found = name("/workspace/𝒳b/𝒴d.rs", &[(0, 2), (3, 4), (5, 6)]).unwrap();
        assert_eq!((&*found.name, &*found.folder), ("𝒴d.rs", "𝒳b"));
        assert_eq!(found.folder_marks, [(0, 3)]);
        assert_eq!(found.name_marks, [(0, 2), (3, 4)]);
        // One mark over both.
        let found = name("/workspace/ab/cd", &[(1, 4)]).unwrap();
        assert_eq!(found.folder_marks, [(1, 2)]);
        assert_eq!(found.name_marks, [(0, 1)]);
        let found = name("/workspace/caf\u{fdd0}e9", &[(3, 4)]).unwrap();
        assert_eq!((&*found.name, &*found.folder), ("caf\u{fffd}", ""));
    }

    #[test]
    fn what_no_search_can_have_found_is_not_believed() {
        assert_eq!(name("/workspace", &[]), None);
        assert_eq!(name("/etc/passwd", &[]), None);
        assert_eq!(name("/workspace/../a", &[]), None);
        assert_eq!(name("/workspace//a", &[]), None);
        assert_eq!(name("/workspace/a", &[(0, 2)]), None);
        assert_eq!(name("/workspace/ab", &[(1, 2), (0, 1)]), None);
        assert_eq!(name("/workspace/ab", &[(1, 1)]), None);
        assert_eq!(
            name(&format!("/workspace/{}", "a".repeat(30_000)), &[]),
            None
        );

        let line = search::FoundLine {
            number: 1,
            column: 0,
            length: 1,
            text: "𝒳".to_owned(),
            cut_before: false,
            cut_after: false,
            marks: vec![(0, 2)],
            matches: 1,
        };
        assert!(found_line(line.clone()).is_some());
        let changes: [fn(&mut search::FoundLine); 4] = [
            |line| line.marks = vec![(0, 3)],
            |line| line.matches = 0,
            |line| line.matches = 101,
            |line| line.text = "a".repeat(3 * LONGEST_LINE + 1),
        ];
        for change in changes {
            let mut other = line.clone();
            change(&mut other);
            assert_eq!(found_line(other.clone()), None, "{other:?}");
        }
    }
}
