//! What came of each run that something went wrong in, one line a run, and the table of them all.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultRecord {
    /// What was being done, `create`.
    pub kind: String,
    /// The phase in which it went wrong.
    pub phase: String,
    /// What went wrong.
    pub fault: String,
    /// Gives the same run again.
    pub seed: u64,
    /// How it ended: `ready`, `failed`, `cancelled`, `discarded`, `gone`; `unjudged` when the engine hung by itself.
    pub outcome: String,
    /// The error's code and reason; empty without an error.
    pub code: String,
    /// Which promise was broken, for people; empty when none was.
    pub broken: String,
    /// Containers and volumes that should not be there.
    pub leftovers: usize,
    /// What belongs to others and is not as it was.
    pub bystanders: usize,
    /// Files of users that are not as they were.
    pub lost: usize,
    /// How long a cancel took.
    pub cancel: Option<Duration>,
}

impl FaultRecord {
    /// Returns whether every promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.leftovers == 0 && self.bystanders == 0 && self.lost == 0
    }

    /// Adds the run to a file of runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append_to(&self, path: &Path) -> Result<()> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        file.and_then(|mut file| file.write_all(format!("{self}\n").as_bytes()))
            .with_context(|| format!("failed to write `{}`", path.display()))
    }
}

/// Separates the fields: kind, phase, fault, seed, outcome, code, leftovers, bystanders, lost, microseconds, broken.
impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| match text.replace(['\t', '\n'], " ") {
            text if text.is_empty() => "-".to_owned(),
            text => text,
        };
        let cancel = self
            .cancel
            .map_or_else(|| "-".to_owned(), |took| took.as_micros().to_string());
        write!(
            f,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{cancel}\t{}",
            plain(&self.kind),
            plain(&self.phase),
            plain(&self.fault),
            self.seed,
            plain(&self.outcome),
            plain(&self.code),
            self.leftovers,
            self.bystanders,
            self.lost,
            plain(&self.broken),
        )
    }
}

impl FromStr for FaultRecord {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut fields = line.split('\t');
        let mut next = || {
            let field = fields
                .next()
                .with_context(|| format!("not a run: `{line}`"))?;
            Ok::<_, anyhow::Error>(if field == "-" { "" } else { field }.to_owned())
        };
        Ok(Self {
            kind: next()?,
            phase: next()?,
            fault: next()?,
            seed: next()?.parse().context("not a seed")?,
            outcome: next()?,
            code: next()?,
            leftovers: next()?.parse().context("not a count")?,
            bystanders: next()?.parse().context("not a count")?,
            lost: next()?.parse().context("not a count")?,
            cancel: next()?.parse().ok().map(Duration::from_micros),
            broken: next()?,
        })
    }
}

/// All runs, summed up by kind and fault when it is displayed.
#[derive(Debug, Clone, Default)]
pub struct FaultTable {
    /// The runs.
    pub records: Vec<FaultRecord>,
}

#[derive(Debug, Default)]
struct Row {
    runs: usize,
    ready: usize,
    stopped: usize,
    failed: usize,
    broken: usize,
    leftovers: usize,
    bystanders: usize,
    lost: usize,
}

impl FaultTable {
    /// Reads a file of runs.
    ///
    /// # Errors
    /// When there is none, or it holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read `{}`", path.display()))?;
        let records = text.lines().map(str::parse).collect::<Result<_>>()?;
        Ok(Self { records })
    }

    /// Returns how long cancels took, the shortest first.
    #[must_use]
    pub fn cancels(&self) -> Vec<Duration> {
        let mut cancels: Vec<_> = self
            .records
            .iter()
            .filter_map(|record| record.cancel)
            .collect();
        cancels.sort_unstable();
        cancels
    }

    /// Returns the time in which this share of all cancels was over; `None` without any.
    #[must_use]
    pub fn cancel_within(&self, percent: usize) -> Option<Duration> {
        let cancels = self.cancels();
        let index = (cancels.len() * percent).div_ceil(100).saturating_sub(1);
        cancels.get(index).copied()
    }

    /// Returns the runs in which a promise was broken.
    pub fn broken(&self) -> impl Iterator<Item = &FaultRecord> {
        self.records.iter().filter(|record| !record.is_good())
    }
}

impl Row {
    fn add(&mut self, record: &FaultRecord) {
        self.runs += 1;
        self.broken += usize::from(!record.broken.is_empty());
        if record.broken.is_empty() {
            match record.outcome.as_str() {
                "ready" => self.ready += 1,
                "failed" => self.failed += 1,
                // Nothing is claimed of it: it is a run in no other column.
                "unjudged" => {}
                _ => self.stopped += 1,
            }
        }
        self.leftovers += record.leftovers;
        self.bystanders += record.bystanders;
        self.lost += record.lost;
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        writeln!(
            f,
            "{name:<44} {:>5} {:>6} {:>10} {:>13} {:>6} {:>9} {:>10} {:>5}",
            self.runs,
            self.ready,
            self.stopped,
            self.failed,
            self.broken,
            self.leftovers,
            self.bystanders,
            self.lost
        )
    }
}

impl fmt::Display for FaultTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:>5} {:>6} {:>10} {:>13} {:>6} {:>9} {:>10} {:>5}",
            "kind, fault",
            "runs",
            "ready",
            "cancelled,",
            "failed, right",
            "broken",
            "leftovers",
            "bystanders",
            "files"
        )?;
        writeln!(
            f,
            "{:<44} {:>5} {:>6} {:>10} {:>13} {:>6} {:>9} {:>10} {:>5}",
            "", "", "", "discarded", "code", "", "", "touched", "lost"
        )?;
        let mut rows = BTreeMap::<_, Row>::new();
        let mut all = Row::default();
        for record in &self.records {
            let name = format!("{}, {}", record.kind, record.fault);
            rows.entry(name).or_default().add(record);
            all.add(record);
        }
        for (name, row) in &rows {
            row.write(f, name)?;
        }
        all.write(f, "all")?;
        let within = |percent| self.cancel_within(percent).unwrap_or_default().as_millis();
        writeln!(
            f,
            "{} cancels: half within {} ms, 99 % within {} ms, all within {} ms",
            self.cancels().len(),
            within(50),
            within(99),
            within(100)
        )?;
        for record in self.broken() {
            writeln!(f, "broken: {record}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_line_and_is_read_back_from_it() {
        let record = FaultRecord {
            kind: "create".into(),
            phase: "PullingImage".into(),
            fault: "cancel".into(),
            seed: 7,
            outcome: "cancelled".into(),
            broken: "two\nlines".into(),
            leftovers: 1,
            cancel: Some(Duration::from_micros(1_500)),
            ..FaultRecord::default()
        };
        let line = record.to_string();
        assert_eq!(line.lines().count(), 1);
        let read: FaultRecord = line.parse().unwrap();
        assert_eq!(read.broken, "two lines");
        assert_eq!(
            FaultRecord {
                broken: record.broken.clone(),
                ..read
            },
            record
        );
        assert!("x\ty".parse::<FaultRecord>().is_err());
    }

    #[test]
    fn the_table_counts_and_knows_how_long_cancels_took() {
        let records = (1..=200).map(|seed| FaultRecord {
            kind: "create".into(),
            fault: "cancel".into(),
            seed,
            outcome: "cancelled".into(),
            leftovers: usize::from(seed == 200),
            cancel: Some(Duration::from_millis(seed)),
            ..FaultRecord::default()
        });
        let table = FaultTable {
            records: records.collect(),
        };
        assert_eq!(table.cancel_within(50), Some(Duration::from_millis(100)));
        assert_eq!(table.cancel_within(99), Some(Duration::from_millis(198)));
        assert_eq!(table.broken().count(), 1);
        assert_eq!(FaultTable::default().cancel_within(99), None);
        let shown = table.to_string();
        assert!(
            shown.contains("99 % within 198 ms, all within 200 ms"),
            "{shown}"
        );
    }
}
