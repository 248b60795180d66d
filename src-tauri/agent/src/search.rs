//! What is searched for in a workspace, and how it is told what was found.
//!
//! A [`Query`] becomes a [`Pattern`] and [`Globs`] here, in the agent that searches and in the app that wants to know
//! beforehand whether it can. Nothing is read here, and this compiles everywhere; the searching itself is in `workspace`.
//!
//! Lines are searched one by one: no pattern matches a line break.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{
    Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind,
    Look, Repetition,
};
use serde::{Deserialize, Serialize};

use crate::path;

/// The most bytes of the text that is searched for.
pub const LONGEST_TEXT: usize = 4_096;
/// The most globs of either kind.
pub const MOST_GLOBS: usize = 100;
/// The most bytes of a glob.
pub const LONGEST_GLOB: usize = 1_024;
/// The most matches of one search.
pub const MOST_MATCHES: u32 = 10_000;
/// The most matches that are told of one line, and the most lines of one file.
pub const MOST_ON_LINE: usize = 100;
/// See [`MOST_ON_LINE`].
pub const MOST_LINES: usize = 1_000;
/// The most bytes of a line that are told.
pub const LONGEST_LINE: usize = 512;
/// The most names of one answer to a find.
pub const MOST_NAMES: u32 = 500;
/// The most bytes of the name that is sought.
pub const LONGEST_NAME: usize = 1_024;

/// The most bytes of a compiled expression; a larger one would take long to search.
const LARGEST_EXPRESSION: usize = 4 << 20;
/// The memory that a search may keep its states in.
const STATES: usize = 2 << 20;
/// The most letters of a class whose other cases are looked for one by one.
const MOST_FOLDED: u64 = 8_192;
/// How deep an expression may nest.
const DEEPEST: u32 = 250;

/// What is searched for, and where.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The text, or the regular expression.
    pub text: String,
    /// Whether it is a regular expression, in the syntax of Rust's `regex`.
    pub regex: bool,
    /// Whether capitals are told from small letters.
    pub case: bool,
    /// Whether only whole words count.
    pub word: bool,
    /// If there are any, only files that match one of these globs are searched.
    pub include: Vec<String>,
    /// Files and folders that match one of these globs are not searched.
    pub exclude: Vec<String>,
    /// Whether files are searched too that `.gitignore` and `.ignore` name.
    pub ignored: bool,
}

/// The part of a query that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its text.
    Text,
    /// Its globs of what is searched.
    Include,
    /// Its globs of what is not.
    Exclude,
}

/// What is wrong with a query, to be read behind the name of the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The part.
    pub part: Part,
    /// For example ``must not be empty``.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// What matches on a line.
#[derive(Debug, Clone)]
pub struct Pattern(pub(crate) Regex);

/// Which files are searched.
#[derive(Debug, Clone)]
pub struct Globs {
    /// `None` for all.
    include: Option<GlobSet>,
    exclude: GlobSet,
}

/// A file in which something was found; more may be told of the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    /// Encoded, see [`crate::path`].
    pub path: String,
    /// At least one, in order.
    pub lines: Vec<FoundLine>,
}

/// A line on which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLine {
    /// Counted from 1.
    pub number: u32,
    /// Where the first match begins: UTF-16 units before it on the line.
    pub column: u32,
    /// UTF-16 units of the first match.
    pub length: u32,
    /// The line, or what of it is around the first match; bytes that are not UTF-8 show as U+FFFD.
    pub text: String,
    /// Whether something was left out before the text, other than blanks.
    pub cut_before: bool,
    /// Whether something was left out behind the text.
    pub cut_after: bool,
    /// Where matches begin and end in the text, in UTF-16 units.
    pub marks: Vec<(u32, u32)>,
    /// Matches on the line, marked or not; at most [`MOST_ON_LINE`] are counted.
    pub matches: u32,
}

/// What a search has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// Files whose content was looked at.
    pub files: u64,
    /// Whether there may be more than was told.
    pub truncated: bool,
    /// Files and folders that could not be read.
    pub unread: u64,
}

/// A file that is called like what is sought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundName {
    /// Encoded, see [`crate::path`].
    pub path: String,
    /// Where what was typed is found, in characters of the path below the workspace as it is shown.
    pub marks: Vec<(u32, u32)>,
    /// Whether `.gitignore` or `.ignore` names it.
    pub ignored: bool,
}

impl Query {
    /// Returns what is searched for.
    ///
    /// # Errors
    /// [`Problem`] with the text.
    pub fn pattern(&self) -> Result<Pattern, Problem> {
        let problem = |message: String| Problem {
            part: Part::Text,
            message,
        };
        if self.text.is_empty() {
            return Err(problem("must not be empty".to_owned()));
        }
        if self.text.len() > LONGEST_TEXT {
            return Err(problem(format!(
                "must be at most {LONGEST_TEXT} bytes long, and has {}",
                self.text.len()
            )));
        }
        if self.text.contains(['\n', '\r']) {
            return Err(problem(
                "must not hold a line break: lines are searched one by one".to_owned(),
            ));
        }
        let text = if self.regex {
            self.text.clone()
        } else {
            regex_syntax::escape(&self.text)
        };
        let parsed = ParserBuilder::new()
            .utf8(false)
            .multi_line(true)
            .crlf(true)
            .nest_limit(DEEPEST)
            .build()
            .parse(&text)
            .map_err(|error| problem(format!("is not a regular expression: {}", reason(&error))))?;
        let looks = parsed.properties().look_set();
        if looks.contains(Look::Start) || looks.contains(Look::End) {
            return Err(problem(
                r"must not hold `\A` or `\z`: lines are searched one by one, between `^` and `$`"
                    .to_owned(),
            ));
        }
        if holds_break(&parsed) {
            return Err(problem(
                "must not look for a line break: lines are searched one by one".to_owned(),
            ));
        }
        if parsed.properties().maximum_len() == Some(0) {
            return Err(problem(
                "would find nothing but places between characters".to_owned(),
            ));
        }
        let meant = if self.case {
            parsed
        } else {
            in_any_case(parsed)
        };
        let within = within_a_line(meant);
        let hir = if self.word {
            let (start, end) = (Look::WordStartHalfUnicode, Look::WordEndHalfUnicode);
            Hir::concat(vec![Hir::look(start), within, Hir::look(end)])
        } else {
            within
        };
        let config = meta::Config::new()
            .utf8_empty(false)
            .which_captures(WhichCaptures::Implicit)
            .nfa_size_limit(Some(LARGEST_EXPRESSION))
            .hybrid_cache_capacity(STATES);
        meta::Builder::new()
            .configure(config)
            .build_from_hir(&hir)
            .map(Pattern)
            .map_err(|_| problem("is a regular expression that is too large".to_owned()))
    }

    /// Returns which files are searched.
    ///
    /// # Errors
    /// [`Problem`] with one of the globs.
    pub fn globs(&self) -> Result<Globs, Problem> {
        let include = if self.include.is_empty() {
            None
        } else {
            Some(globs(Part::Include, &self.include)?)
        };
        Ok(Globs {
            include,
            exclude: globs(Part::Exclude, &self.exclude)?,
        })
    }
}

impl Globs {
    /// Returns whether a file is searched; its path is that below the workspace.
    pub(crate) fn take_file(&self, path: &[u8]) -> bool {
        let candidate = globset::Candidate::from_bytes(path);
        let is_included = self.include.as_ref();
        is_included.is_none_or(|globs| globs.is_match_candidate(&candidate))
            && !self.exclude.is_match_candidate(&candidate)
    }

    /// Returns whether files in a folder may be searched.
    pub(crate) fn take_folder(&self, path: &[u8]) -> bool {
        !self
            .exclude
            .is_match_candidate(&globset::Candidate::from_bytes(path))
    }
}

/// Takes globs as they are typed, between commas; a comma in braces is part of a glob.
#[must_use]
pub fn split_globs(text: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let parts = text.split(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// A glob means what it matches and all that is in it. It may match anywhere, unless it begins with `./` or `/`.
fn globs(part: Part, globs: &[String]) -> Result<GlobSet, Problem> {
    let problem = |message: String| Problem { part, message };
    if globs.len() > MOST_GLOBS {
        return Err(problem(format!("must be at most {MOST_GLOBS} globs")));
    }
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        if glob.len() > LONGEST_GLOB {
            let limit = format!("must be globs of at most {LONGEST_GLOB} bytes");
            return Err(problem(limit));
        }
        let inside = glob.strip_prefix(path::ROOT).filter(|rest| {
            // Not `/workspaces`.
            rest.is_empty() || rest.starts_with('/')
        });
        let anchored = inside
            .or_else(|| glob.strip_prefix("./"))
            .or_else(|| glob.strip_prefix('/'));
        let rest = anchored.unwrap_or(glob).trim_matches('/');
        let base = match (rest, anchored) {
            ("" | ".", _) => "**".to_owned(),
            (rest, Some(_)) => rest.to_owned(),
            (rest, None) if rest.starts_with("**/") => rest.to_owned(),
            (rest, None) => format!("**/{rest}"),
        };
        for pattern in [format!("{base}/**"), base] {
            let built = GlobBuilder::new(&pattern).literal_separator(true).build();
            let built = built.map_err(|error| {
                problem(format!(
                    "holds `{glob}`, which is no glob: {}",
                    error.kind()
                ))
            })?;
            set.add(built);
        }
    }
    let set = set.build();
    set.map_err(|error| problem(format!("are globs that are too large: {}", error.kind())))
}

/// Says what is wrong with an expression, in one line.
fn reason(error: &regex_syntax::Error) -> String {
    let (kind, at) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.column),
        regex_syntax::Error::Translate(error) => {
            (error.kind().to_string(), error.span().start.column)
        }
        other => (other.to_string(), 1),
    };
    format!("{kind}, at character {at}")
}

fn holds_break(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Repetition(repetition) => holds_break(&repetition.sub),
        HirKind::Capture(capture) => holds_break(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(holds_break),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}

/// Lets small letters and capitals of an expression mean each other. The library could do so, with tables that are a
/// tenth of the agent's size.
fn in_any_case(hir: Hir) -> Hir {
    map(hir, &|leaf| match leaf {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Hir::concat(text.chars().map(any_case_of).collect()),
            Err(_) => Hir::literal(literal.0),
        },
        HirKind::Class(Class::Unicode(class)) => {
            let complement = {
                let mut complement = class.clone();
                complement.negate();
                complement
            };
            // One of both is short, but for classes that have both cases of all letters, as `\w` does.
            let class = if let Some(folded) = folded(&class) {
                folded
            } else if let Some(mut folded) = folded(&complement) {
                folded.negate();
                folded
            } else {
                class
            };
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.case_fold_simple();
            Hir::class(Class::Bytes(class))
        }
        other => rebuilt(other),
    })
}

/// Returns a class with both cases of its letters, unless it has very many.
fn folded(class: &ClassUnicode) -> Option<ClassUnicode> {
    let length = |range: &ClassUnicodeRange| u32::from(range.end()) - u32::from(range.start());
    let total = class.iter().map(|range| u64::from(length(range)) + 1);
    if total.sum::<u64>() > MOST_FOLDED {
        return None;
    }
    let letters = class.iter().flat_map(|range| range.start()..=range.end());
    let all = letters.flat_map(cases_of);
    Some(ClassUnicode::new(
        all.map(|letter| ClassUnicodeRange::new(letter, letter)),
    ))
}

fn any_case_of(letter: char) -> Hir {
    let ranges = cases_of(letter).map(|letter| ClassUnicodeRange::new(letter, letter));
    Hir::class(Class::Unicode(ClassUnicode::new(ranges)))
}

/// Returns a letter with what is the same in another case, where that is one letter too.
fn cases_of(letter: char) -> impl Iterator<Item = char> {
    fn single(mut letters: impl Iterator<Item = char>) -> Option<char> {
        letters.next().filter(|_| letters.next().is_none())
    }
    let upper = single(letter.to_uppercase());
    let lower = single(letter.to_lowercase());
    let again = upper.and_then(|upper| single(upper.to_lowercase()));
    [Some(letter), upper, lower, again].into_iter().flatten()
}

/// Takes line breaks out of the classes of an expression, so that `\s` and `[^a]` end with the line.
fn within_a_line(hir: Hir) -> Hir {
    map(hir, &|leaf| match leaf {
        HirKind::Class(Class::Unicode(mut class)) => {
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        other => rebuilt(other),
    })
}

/// Puts something else in the place of each literal and class.
fn map(hir: Hir, leaf: &dyn Fn(HirKind) -> Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Repetition(Repetition {
            min,
            max,
            greedy,
            sub,
        }) => Hir::repetition(Repetition {
            min,
            max,
            greedy,
            sub: Box::new(map(*sub, leaf)),
        }),
        HirKind::Capture(Capture { index, name, sub }) => Hir::capture(Capture {
            index,
            name,
            sub: Box::new(map(*sub, leaf)),
        }),
        HirKind::Concat(parts) => {
            Hir::concat(parts.into_iter().map(|part| map(part, leaf)).collect())
        }
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.into_iter().map(|part| map(part, leaf)).collect())
        }
        kind @ (HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_)) => {
            leaf(kind)
        }
    }
}

/// Returns what has no parts as it was.
fn rebuilt(kind: HirKind) -> Hir {
    match kind {
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Empty
        | HirKind::Repetition(_)
        | HirKind::Capture(_)
        | HirKind::Concat(_)
        | HirKind::Alternation(_) => Hir::empty(),
    }
}

#[cfg(test)]
mod tests {
    use regex_automata::Input;

    use super::*;

    fn query(text: &str) -> Query {
        Query {
            text: text.to_owned(),
            ..Query::default()
        }
    }

    fn regex(text: &str) -> Query {
        Query {
            regex: true,
            ..query(text)
        }
    }

    #[track_caller]
    fn check(query: &Query, line: &str, expected: &[&str]) {
        let Pattern(pattern) = query.pattern().unwrap();
        let found: Vec<_> = pattern
            .find_iter(Input::new(line))
            .map(|found| &line[found.range()])
            .collect();
        assert_eq!(found, expected, "{query:?} in {line:?}");
    }

    #[track_caller]
    fn check_refused(query: &Query, part: Part, message: &str) {
        let problem = query.pattern().map(drop).and_then(|()| {
            query.globs()?;
            Ok(())
        });
        assert_eq!(
            problem,
            Err(Problem {
                part,
                message: message.to_owned()
            })
        );
    }

    #[test]
    fn a_text_is_found_as_it_is_typed_in_small_letters_and_capitals() {
        check(&query("a.b"), "a.b axb A.B", &["a.b", "A.B"]);
        check(&query("straße"), "STRAßE", &["STRAßE"]);
        check(&query("ÄÖ"), "äö", &["äö"]);
        let exact = Query {
            case: true,
            ..query("a.b")
        };
        check(&exact, "a.b axb A.B", &["a.b"]);
    }

    #[test]
    fn whole_words_have_no_letters_beside_them() {
        let word = Query {
            word: true,
            ..query("cat")
        };
        check(&word, "cat concat cat_ (cat) çat écat", &["cat", "cat"]);
        // What is no word itself may stand anywhere but in one.
        let sign = Query {
            word: true,
            ..query("->x")
        };
        check(&sign, "a ->x ->xy", &["->x"]);
        let either = Query {
            word: true,
            ..regex("a|bc")
        };
        check(&either, "a bc abc xbc", &["a", "bc"]);
    }

    #[test]
    fn no_class_reaches_over_the_end_of_a_line() {
        check(&regex(r"a\s+b"), "a \n b a b", &["a b"]);
        check(&regex("x[^y]*"), "xa\nbx", &["xa", "x"]);
        check(&regex(r"(?s)a.*"), "ab\nac", &["ab", "ac"]);
        check(&regex("^b$"), "a\r\nb\r\n", &["b"]);
    }

    #[test]
    fn small_letters_and_capitals_mean_each_other_in_expressions_too() {
        check(
            &regex("[a-c]x|ß|É"),
            "AX bX cx ß é",
            &["AX", "bX", "cx", "ß", "é"],
        );
        check(&regex("[^ä ]+"), "aÄbäc d", &["a", "b", "c", "d"]);
        check(&regex(r"\w+"), "né 1", &["né", "1"]);
        check(&regex(r"\W+"), "né -1", &[" -"]);
        check(&regex(r"[^\w.]+"), "né, .1", &[", "]);
        check(&regex("σ"), "Σ σ", &["Σ", "σ"]);
        let exact = Query {
            case: true,
            ..regex("[^ä ]+")
        };
        check(&exact, "aÄbäc", &["aÄb", "c"]);
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_reason_and_the_place() {
        check_refused(
            &regex("a(b"),
            Part::Text,
            "is not a regular expression: unclosed group, at character 2",
        );
        check_refused(
            &regex("*"),
            Part::Text,
            "is not a regular expression: repetition operator missing expression, at character 1",
        );
        check_refused(
            &regex("(?=a)"),
            Part::Text,
            "is not a regular expression: look-around, including look-ahead and look-behind, is not supported, at character 1",
        );
        check_refused(
            &regex(&"(".repeat(200)),
            Part::Text,
            "is not a regular expression: unclosed group, at character 200",
        );
        check_refused(&query(""), Part::Text, "must not be empty");
        let breaks = "must not look for a line break: lines are searched one by one";
        check_refused(&regex(r"a\nb"), Part::Text, breaks);
        check_refused(&regex(r"a(bc|[\n])"), Part::Text, breaks);
        check_refused(
            &query("a\nb"),
            Part::Text,
            "must not hold a line break: lines are searched one by one",
        );
        check_refused(
            &regex("^"),
            Part::Text,
            "would find nothing but places between characters",
        );
        check_refused(
            &regex("((a{100}){100}){100}"),
            Part::Text,
            "is a regular expression that is too large",
        );
        check_refused(
            &regex(r"\Aa"),
            Part::Text,
            r"must not hold `\A` or `\z`: lines are searched one by one, between `^` and `$`",
        );
    }

    #[test]
    fn the_deepest_expression_fits_the_stack_of_the_agents_threads() {
        let of_depth = |depth| format!("{}a{}", "(?:x|".repeat(depth), ")".repeat(depth));
        let thread = std::thread::Builder::new().stack_size(512 << 10);
        let compiled = thread.spawn(move || {
            let mut depths = (0..250).rev().map(|depth| regex(&of_depth(depth)));
            depths.any(|deepest| deepest.pattern().is_ok())
        });
        assert!(compiled.unwrap().join().unwrap());
    }

    #[track_caller]
    fn check_globs(include: &str, exclude: &str, taken: &[&str], left: &[&str]) {
        let query = Query {
            include: split_globs(include),
            exclude: split_globs(exclude),
            ..query("a")
        };
        let globs = query.globs().unwrap();
        for path in taken {
            assert!(globs.take_file(path.as_bytes()), "{path}");
        }
        for path in left {
            assert!(!globs.take_file(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn globs_mean_what_they_match_and_what_is_in_it() {
        check_globs("*.rs", "", &["a.rs", "x/y/a.rs"], &["a.ts", "a.rs.bak"]);
        check_globs("src", "", &["src/a", "x/src/y/a"], &["a", "srcs/a"]);
        check_globs("./src", "", &["src/a"], &["x/src/a"]);
        check_globs("/workspace/src/", "", &["src/a/b"], &["x/src/a"]);
        check_globs("src/*.rs", "", &["src/a.rs", "x/src/a.rs"], &["src/x/a.rs"]);
        check_globs(
            "*.{ts,js}, *.rs",
            "",
            &["a.ts", "a.js", "b/a.rs"],
            &["a.py"],
        );
        check_globs("", "target, *.log", &["a.rs"], &["target/a.rs", "x/a.log"]);
        check_globs("*.rs", "**/tests/**", &["a.rs"], &["x/tests/a.rs", "b.py"]);
        check_globs("/", "", &["a", "b/c"], &[]);
    }

    #[test]
    fn what_is_no_glob_is_refused_by_its_name() {
        let bad = Query {
            exclude: split_globs("ok, a[b"),
            ..query("a")
        };
        check_refused(
            &bad,
            Part::Exclude,
            "holds `a[b`, which is no glob: unclosed character class; missing ']'",
        );
        let many = Query {
            include: vec!["a".to_owned(); MOST_GLOBS + 1],
            ..query("a")
        };
        check_refused(&many, Part::Include, "must be at most 100 globs");
    }
}
