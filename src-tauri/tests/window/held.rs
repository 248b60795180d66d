//! For how long the page does nothing else: the longest time between two turns of its event loop.
//!
//! What counts is the page's own work. The time in which its thread could have run and did not, because other
//! programs or other machines had the processor, is taken off, so that a busy machine is not a page that is held.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::app::App;

/// How long no input may hold the page.
pub(crate) const HELD: Duration = Duration::from_millis(200);
/// How often the page's thread is looked at.
const SAMPLE: Duration = Duration::from_millis(5);
/// Turns of the page that are shorter are not noted, in milliseconds.
const NOTED: u32 = 30;

/// Notes the turns of the page that take long, as they begin and end on the machine's clock.
const WATCH: &str = "
    const [noted] = arguments;
    clearInterval(window.__held?.timer);
    const clock = Date.now() - performance.now();
    const held = (window.__held = { turns: [], last: performance.now(), timer: 0, note: null });
    held.note = () => {
        const now = performance.now();
        if (now - held.last >= noted) held.turns.push([clock + held.last, clock + now]);
        held.last = now;
    };
    held.timer = setInterval(held.note, 5);
";

const TURNS: &str = "
    window.__held.note();
    clearInterval(window.__held.timer);
    return window.__held.turns;
";

/// Looks at the page until it is asked.
pub(crate) struct Watch<'a> {
    app: &'a App,
    over: Arc<AtomicBool>,
    sampler: Option<JoinHandle<Vec<Sample>>>,
}

/// What the page's thread has waited for the processor, all in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    /// For others on this machine.
    waited: f64,
    /// For other machines on the same host, at most.
    stolen: f64,
}

impl<'a> Watch<'a> {
    pub(crate) fn begin(app: &'a App) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let page = app.window.page_process().unwrap();
        let until = Arc::clone(&over);
        let sampler = thread::spawn(move || {
            let mut samples = Vec::new();
            while !until.load(Ordering::Relaxed) {
                samples.push(Sample::take(page));
                thread::sleep(SAMPLE);
            }
            samples.push(Sample::take(page));
            samples
        });
        app.window.execute(WATCH, &[json!(NOTED)]).unwrap();
        Self {
            app,
            over,
            sampler: Some(sampler),
        }
    }

    /// Returns for how long the page was held at most.
    pub(crate) fn end(mut self) -> Duration {
        let turns = self.app.window.execute(TURNS, &[]).unwrap();
        let turns: Vec<(f64, f64)> = serde_json::from_value(turns).unwrap();
        self.over.store(true, Ordering::Relaxed);
        let samples = self.sampler.take().unwrap().join().unwrap();
        let own = turns.iter().map(|turn| own_work(*turn, &samples));
        Duration::from_secs_f64(own.fold(0.0, f64::max) / 1_000.0)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Sample {
    fn take(page: u32) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // Both stay at zero where the kernel does not count them: then nothing is taken off.
        let schedule = fs::read_to_string(format!("/proc/{page}/task/{page}/schedstat"));
        let waited = schedule.ok().and_then(|words| nth(&words, 1));
        let stolen = fs::read_to_string("/proc/stat").ok().and_then(|lines| {
            let processors = lines
                .lines()
                .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
            processors.filter_map(|line| nth(line, 8)).reduce(f64::max)
        });
        Self {
            at: now.as_secs_f64() * 1_000.0,
            waited: waited.unwrap_or(0.0) / 1_000_000.0,
            // Hundredths of a second.
            stolen: stolen.unwrap_or(0.0) * 10.0,
        }
    }
}

fn nth(words: &str, n: usize) -> Option<f64> {
    words.split_whitespace().nth(n)?.parse().ok()
}

/// Returns how much of a turn of the page was its own work.
fn own_work((begin, end): (f64, f64), samples: &[Sample]) -> f64 {
    let before = samples.iter().rfind(|sample| sample.at <= begin);
    let after = samples.iter().find(|sample| sample.at >= end);
    let (Some(before), Some(after)) = (before.or(samples.first()), after.or(samples.last())) else {
        return end - begin;
    };
    let lost = after.waited - before.waited + after.stolen - before.stolen;
    (end - begin - lost).max(0.0)
}

/// Three times as many programs as there are processors, which never rest.
struct BusyMachine {
    over: Arc<AtomicBool>,
}

impl BusyMachine {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let processors = thread::available_parallelism().unwrap().get();
        for _ in 0..3 * processors {
            let until = Arc::clone(&over);
            thread::spawn(move || while !until.load(Ordering::Relaxed) {});
        }
        Self { over }
    }
}

impl Drop for BusyMachine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_page_that_works_is_held_and_one_that_waits_for_the_processor_is_not() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let busy = BusyMachine::begin();
    let watch = Watch::begin(&app);
    let wait = "const [done] = arguments; setTimeout(() => done(true), 3000)";
    app.window.execute_async(wait, &[]).unwrap();
    let idle = watch.end();
    assert!(idle < HELD, "{idle:?}");
    drop(busy);
    let watch = Watch::begin(&app);
    let work = "const end = performance.now() + 2000; while (performance.now() < end);";
    app.window.execute(work, &[]).unwrap();
    let held = watch.end();
    assert!(held > HELD, "{held:?}");
}
