//! Counts of checks and tests, read from what the tools print, and the last words of a test run.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What passed, failed and was skipped, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) skips: Vec<String>,
}

impl Tally {
    /// Returns the tally of a check that passed or failed as a whole.
    pub(crate) fn check(name: &str, outcome: Result<()>) -> Self {
        match outcome {
            Ok(()) => Self {
                passed: 1,
                ..Self::default()
            },
            Err(error) => Self::failure(format!("{name}: {error:#}")),
        }
    }

    /// Returns one failure.
    pub(crate) fn failure(reason: String) -> Self {
        Self {
            failed: 1,
            failures: vec![reason],
            ..Self::default()
        }
    }

    /// Returns one skipped check.
    pub(crate) fn skip(reason: String) -> Self {
        Self {
            skipped: 1,
            skips: vec![reason],
            ..Self::default()
        }
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// Returns the last words: reasons, then the one line.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        for (title, reasons) in [("failed", &self.failures), ("skipped", &self.skips)] {
            for reason in reasons {
                // Writing to a String cannot fail.
                let _ = writeln!(words, "{title}: {reason}");
            }
        }
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = self;
        let _ = writeln!(words, "{passed} passed, {failed} failed, {skipped} skipped");
        words
    }
}

/// Reads what `cargo nextest run` printed; `skips` are the lines that tests wrote which could not run here.
pub(crate) fn from_nextest(printed: &str, skips: &str) -> Result<Tally> {
    let lines: Vec<String> = printed.lines().map(plain).collect();
    let at = lines
        .iter()
        .rposition(|line| line.trim_start().starts_with("Summary ["))
        .context("the tests did not come to an end")?;
    let summary = lines.get(at).map(String::as_str).unwrap_or_default();
    let (_, counts) = summary
        .split_once("run:")
        .context("the tests' summary is not as expected")?;
    let mut tally = Tally::default();
    for count in counts.split(',') {
        let mut words = count.split_whitespace();
        let (Some(number), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let number: u64 = number
            .parse()
            .context("the tests' summary is not as expected")?;
        match kind {
            "passed" => tally.passed += number,
            // What nextest calls skipped was not asked for.
            "skipped" => {}
            // Failed, timed out, or could not be started.
            _ => tally.failed += number,
        }
    }
    let is_failure = |line: &&String| {
        let line = line.trim_start();
        ["FAIL", "TIMEOUT", "SIG", "ABORT", "XFAIL", "LEAK-FAIL"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    tally.failures = lines
        .iter()
        .skip(at + 1)
        .filter(is_failure)
        .map(|line| {
            line.split(']')
                .next_back()
                .unwrap_or(line)
                .trim()
                .to_owned()
        })
        .collect();
    for skip in skips.lines() {
        tally.skips.push(skip.replace('\t', ": "));
        tally.skipped += 1;
        // The test has returned early, which nextest takes for a pass.
        tally.passed = tally.passed.saturating_sub(1);
    }
    Ok(tally)
}

/// Reads the JSON report of vitest.
pub(crate) fn from_vitest(report: &str) -> Result<Tally> {
    let report: Value = serde_json::from_str(report).context("the UI tests' report is not JSON")?;
    let count = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut tally = Tally {
        passed: count("numPassedTests"),
        failed: count("numFailedTests"),
        skipped: count("numPendingTests") + count("numTodoTests"),
        ..Tally::default()
    };
    let list = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    for file in list(&report, "testResults") {
        let tests = list(&file, "assertionResults");
        if tests.is_empty() && text(&file, "status") == "failed" {
            // A file that does not even load has no tests to count.
            tally.failed += 1;
            tally.failures.push(format!(
                "{}: {}",
                text(&file, "name"),
                text(&file, "message")
            ));
        }
        for test in tests {
            match text(&test, "status").as_str() {
                "failed" => tally.failures.push(text(&test, "fullName")),
                "pending" | "skipped" | "todo" => tally.skips.push(text(&test, "fullName")),
                _ => {}
            }
        }
    }
    Ok(tally)
}

/// Returns a line without its colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut line, part| {
        line.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXTEST: &str = "\
    Starting 4 tests across 2 binaries (1 test skipped)
        PASS [   0.010s] cove-core image::tests::one
        FAIL [   0.004s] cove-core image::tests::two
────────────
     Summary [   0.304s] 4 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 1 skipped
        FAIL [   0.004s] cove-core image::tests::two
     TIMEOUT [ 300.004s] cove-core engine::three
error: test run failed
";

    #[test]
    fn a_test_run_is_counted_with_its_failures_and_skips() {
        let tally = from_nextest(NEXTEST, "engine::four\tno engine here\n").unwrap();
        assert_eq!(
            tally,
            Tally {
                passed: 1,
                failed: 2,
                skipped: 1,
                failures: vec![
                    "cove-core image::tests::two".into(),
                    "cove-core engine::three".into()
                ],
                skips: vec!["engine::four: no engine here".into()],
            }
        );
    }

    #[test]
    fn colours_do_not_matter_and_a_run_without_an_end_is_an_error() {
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.004s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped";
        assert_eq!(from_nextest(coloured, "").unwrap().passed, 1);
        assert!(from_nextest("error: could not compile `cove`", "").is_err());
    }

    #[test]
    fn a_report_of_the_ui_tests_is_counted() {
        let report = r#"{"numPassedTests": 2, "numFailedTests": 1, "numPendingTests": 1, "numTodoTests": 0, "testResults": [
            {"name": "a.ts", "status": "failed", "assertionResults": [
                {"status": "passed", "fullName": "one"}, {"status": "failed", "fullName": "two"}, {"status": "skipped", "fullName": "three"}]},
            {"name": "b.ts", "status": "failed", "message": "no such module", "assertionResults": []}]}"#;
        let tally = from_vitest(report).unwrap();
        assert_eq!((tally.passed, tally.failed, tally.skipped), (2, 2, 1));
        assert_eq!(tally.failures, ["two", "b.ts: no such module"]);
        assert_eq!(tally.skips, ["three"]);
    }

    #[test]
    fn the_last_words_end_in_one_line_of_counts() {
        let mut tally = Tally::check("formatting", Ok(()));
        tally.add(Tally::failure("clippy: 2 warnings".into()));
        tally.add(Tally::skip("window tests: no display".into()));
        assert_eq!(
            tally.last_words(),
            "failed: clippy: 2 warnings\nskipped: window tests: no display\n1 passed, 1 failed, 1 skipped\n"
        );
    }
}
