//! The log: what goes into it, in one line each, and how much of it.
//!
//! Much of what is logged was said by others: containers, registries, engines. So every line is made
//! harmless here, in one place: control and direction characters are escaped, long lines are cut, and
//! whoever says too much is left out for a while, so that nobody can wipe older lines out of the file.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cove_core::own_file;
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use tauri::{App, Manager};
use tauri_plugin_log::{Builder, RotationStrategy, Target, TargetKind, attach_logger};

use crate::ipc::EVENT_LOG;

/// Bytes of a line; the rest is cut.
const MOST_BYTES_OF_LINE: usize = 500;
/// The same for our own events, which are JSON.
const MOST_BYTES_OF_EVENT: usize = 2_000;
/// Lines that a target may log at once, of each level.
const BURST: u32 = 300;
/// How long it takes until it may log one more. A target that never stops fills less than a megabyte a day.
const REFILL: Duration = Duration::from_secs(60);
/// Bytes of a log file. There are two at most, of which the older one is full.
const MOST_BYTES: u128 = 4_000_000;

/// Logs to the standard output and, where that can be written, to the system's place for logs.
///
/// # Errors
/// When something logs already.
pub(crate) fn start(app: &App) -> Result<(), Box<dyn std::error::Error>> {
    let level = wanted_level();
    let output = || Target::new(TargetKind::Stdout);
    let file = Target::new(TargetKind::LogDir { file_name: None });
    set_aside_what_is_no_file(app);
    let (made, problem) = match builder([output(), file], level).split(app.handle()) {
        Ok(made) => (made, None),
        Err(error) => (builder([output()], level).split(app.handle())?, Some(error)),
    };
    let (plugin, most, logger) = made;
    // Whoever asks for more wants all of it.
    let limiter = (level <= LevelFilter::Info).then(Mutex::default);
    let began = Instant::now();
    attach_logger(
        most,
        Box::new(Harmless {
            logger,
            limiter,
            began,
        }),
    )?;
    app.handle().plugin(plugin)?;
    if let Some(error) = problem {
        log::warn!("there is no log file: {error}");
    }
    Ok(())
}

/// Returns how much is logged: what matters, or more by `COVE_LOG=debug`.
fn wanted_level() -> LevelFilter {
    match std::env::var("COVE_LOG").as_deref() {
        Ok("debug") => LevelFilter::Debug,
        Ok("trace") => LevelFilter::Trace,
        _ => LevelFilter::Info,
    }
}

fn builder(targets: impl IntoIterator<Item = Target>, level: LevelFilter) -> Builder {
    Builder::new()
        .level(LevelFilter::Warn)
        .level_for("cove", level)
        .level_for("cove_core", level)
        .level_for(EVENT_LOG, level)
        .targets(targets)
        .max_file_size(MOST_BYTES)
        .rotation_strategy(RotationStrategy::KeepSome(1))
}

/// Makes room for the log file: writing into a pipe would wait for a reader, on the main thread.
fn set_aside_what_is_no_file(app: &App) {
    let Ok(folder) = app.path().app_log_dir() else {
        return;
    };
    let path = folder.join(format!("{}.log", app.package_info().name));
    if std::fs::metadata(&path).is_ok_and(|facts| !facts.is_file()) {
        own_file::set_aside(&path, "it is no regular file");
    }
}

/// A logger that gets nothing but harmless lines, and not too many.
struct Harmless<L> {
    logger: L,
    /// Absent when all lines are wanted.
    limiter: Option<Mutex<Limiter>>,
    began: Instant,
}

impl<L: Log> Log for Harmless<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.logger.enabled(record.metadata()) {
            return;
        }
        let admitted = self.limiter.as_ref().map_or(Some(0), |limiter| {
            let now = self.began.elapsed();
            limiter.lock().admit(record.target(), record.level(), now)
        });
        let Some(left_out) = admitted else {
            return;
        };
        if left_out > 0 {
            self.put(
                record,
                &format!("{left_out} lines like the next were left out"),
            );
        }
        let most = if record.target() == EVENT_LOG {
            MOST_BYTES_OF_EVENT
        } else {
            MOST_BYTES_OF_LINE
        };
        self.put(record, &harmless(&record.args().to_string(), most));
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

impl<L: Log> Harmless<L> {
    fn put(&self, record: &Record<'_>, text: &str) {
        self.logger.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .args(format_args!("{text}"))
                .build(),
        );
    }
}

/// Returns a text in one line of about `most` bytes at most, in which nothing acts on a terminal or on the
/// order in which it is read.
fn harmless(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut rest = text.trim_end().chars();
    while line.len() < most
        && let Some(character) = rest.next()
    {
        if is_harmless(character) {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
    }
    let cut = rest.count();
    if cut > 0 {
        // Writing to a text cannot fail.
        let _ = write!(line, "… ({cut} characters more)");
    }
    line
}

/// Returns whether a character only shows itself. Control characters act, marks of direction reorder what is
/// around them, separators break the line, and tags and fillers are invisible.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{AD}'
                | '\u{61C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{3164}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// Counts the lines of each target and level, as a bucket that is full at first and fills up again slowly.
#[derive(Debug, Default)]
struct Limiter {
    /// Targets are places in the code, so there are not many.
    buckets: HashMap<(String, Level), Bucket>,
}

#[derive(Debug)]
struct Bucket {
    lines: u32,
    filled_at: Duration,
    left_out: u64,
}

impl Limiter {
    /// Returns how many lines were left out since the last one, or `None` when this one is left out as well.
    fn admit(&mut self, target: &str, level: Level, now: Duration) -> Option<u64> {
        let bucket = self
            .buckets
            .entry((target.to_owned(), level))
            .or_insert(Bucket {
                lines: BURST,
                filled_at: now,
                left_out: 0,
            });
        let since = now.saturating_sub(bucket.filled_at);
        let more = u32::try_from(since.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        bucket.lines = bucket.lines.saturating_add(more).min(BURST);
        bucket.filled_at = bucket.filled_at.saturating_add(REFILL.saturating_mul(more));
        if bucket.lines == 0 {
            bucket.left_out += 1;
            return None;
        }
        bucket.lines -= 1;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Log for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    /// Returns what is logged of these texts.
    fn logged<'a>(target: &str, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let log = Harmless {
            logger: Lines::default(),
            limiter: Some(Mutex::default()),
            began: Instant::now(),
        };
        for text in texts {
            log.log(
                &Record::builder()
                    .target(target)
                    .level(Level::Warn)
                    .args(format_args!("{text}"))
                    .build(),
            );
        }
        log.logger.0.into_inner()
    }

    #[test]
    fn what_others_say_is_one_harmless_line() {
        let said = "end\r\n[2026-01-01][00:00:00][cove][ERROR] forged \u{1b}[2J\u{202e}gnp.\u{2028}\u{e0041}é\t\u{9b}1m\n";
        assert_eq!(
            logged("cove_core::agent", [said]),
            [
                "end\\r\\n[2026-01-01][00:00:00][cove][ERROR] forged \\u{1b}[2J\\u{202e}gnp.\\u{2028}\\u{e0041}é\\t\\u{9b}1m"
            ]
        );
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = "x".repeat(1_000_000);
        assert_eq!(
            logged("cove_core::agent", [long.as_str()]),
            [format!("{}… (999500 characters more)", "x".repeat(500))]
        );
        let event = "x".repeat(2_000);
        assert_eq!(logged(EVENT_LOG, [event.as_str()]), [event.as_str()]);
    }

    #[test]
    fn whoever_says_too_much_is_left_out_and_others_are_heard() {
        let mut limiter = Limiter::default();
        let mut at =
            |target, level, seconds| limiter.admit(target, level, Duration::from_secs(seconds));
        for _ in 0..BURST {
            assert_eq!(at("agent", Level::Warn, 0), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(at("agent", Level::Warn, 59), None);
        }
        assert_eq!(
            at("agent", Level::Error, 59),
            Some(0),
            "errors are counted apart"
        );
        assert_eq!(at("engine", Level::Warn, 59), Some(0));
        assert_eq!(at("agent", Level::Warn, 60), Some(1_000));
        assert_eq!(at("agent", Level::Warn, 61), None);
        assert_eq!(at("agent", Level::Warn, 185), Some(1));
    }

    #[test]
    fn a_week_of_one_that_never_stops_fits_into_the_log() {
        let mut limiter = Limiter::default();
        let week = 7 * 24 * 60 * 60;
        let lines = (0..week)
            .filter(|second| {
                let now = Duration::from_secs(*second);
                limiter.admit("agent", Level::Warn, now).is_some()
            })
            .count();
        // The longest line, its note of what was cut, the note of what was left out, and what stands before each.
        let bytes = u128::try_from(lines * (MOST_BYTES_OF_LINE + 30 + 50 + 2 * 60)).unwrap();
        assert!(bytes < 2 * MOST_BYTES, "{lines} lines");
    }
}
