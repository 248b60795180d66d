//! When a session counts as left alone: nobody uses it, and its programs neither work nor write. What they do is
//! looked at a few times in as long as a session may be left alone, and that it is about to be stopped is said before.
//!
//! Pure: the clock and what was seen are the caller's.

use std::time::Duration;

use tokio::time::Instant;

use crate::processes::Work;

/// Processor time within one look and the next that is not yet work: shells and servers that wait take less.
const AT_REST: Duration = Duration::from_millis(100);
/// How long before a session is stopped that is said, at most; of a short limit it is a fifth.
const LONGEST_WARNING: Duration = Duration::from_secs(120);

/// How long a session has been left alone, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// What the programs had done at the last look.
    seen: Option<Work>,
    /// When it is going to be stopped, once that has been said.
    stop_at: Option<Instant>,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Programs have worked: that counts as use.
    Works,
    /// Nothing to do yet.
    Rests,
    /// It is going to be stopped then, which is to be said.
    StopsAt(Instant),
    /// It is to be stopped.
    IsOver,
}

impl Idle {
    /// Returns when to look next.
    pub(super) fn next_look(&self, used: Instant, limit: Duration, now: Instant) -> Instant {
        if let Some(stop_at) = self.stop_at {
            return stop_at;
        }
        let quarters = (1..4).map(|quarter| used + limit * quarter / 4);
        let warning = used + limit.saturating_sub(warning(limit));
        let mut looks = quarters.chain([warning]);
        looks.find(|look| *look > now).unwrap_or(now)
    }

    /// Says what follows from what the programs have done by now; `None` when nobody could tell.
    pub(super) fn look(
        &mut self,
        work: Option<Work>,
        used: Instant,
        limit: Duration,
        now: Instant,
    ) -> Finding {
        let before = self.seen;
        self.seen = work.or(before);
        if let (Some(before), Some(work)) = (before, work)
            && (work.written_bytes != before.written_bytes
                || work.processor.abs_diff(before.processor) >= AT_REST)
        {
            self.stop_at = None;
            return Finding::Works;
        }
        match self.stop_at {
            Some(stop_at) if stop_at <= now => Finding::IsOver,
            None if now + warning(limit) >= used + limit => {
                let stop_at = (used + limit).max(now + warning(limit));
                self.stop_at = Some(stop_at);
                Finding::StopsAt(stop_at)
            }
            Some(_) | None => Finding::Rests,
        }
    }

    /// Takes back what was said, because somebody uses the session. Returns whether anything was.
    pub(super) fn used(&mut self) -> bool {
        self.stop_at.take().is_some()
    }

    /// Returns whether it has been said that it is going to be stopped.
    pub(super) fn is_said(&self) -> bool {
        self.stop_at.is_some()
    }
}

fn warning(limit: Duration) -> Duration {
    LONGEST_WARNING.min(limit / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMIT: Duration = Duration::from_secs(20 * 60);

    fn work(processor_ms: u64, written_bytes: u64) -> Work {
        Work {
            processor: Duration::from_millis(processor_ms),
            written_bytes,
        }
    }

    /// Plays what the programs do, by the minute, until the session is to be stopped or two hours are over. Returns the
    /// minutes of the looks, and those at which it was said, worked and stopped.
    fn play(does: impl Fn(u32) -> Work) -> (Vec<u32>, Vec<u32>, Vec<u32>, Option<u32>) {
        let begin = Instant::now();
        let minute = |at: Instant| u32::try_from(at.duration_since(begin).as_secs() / 60).unwrap();
        let (mut idle, mut used, mut now) = (Idle::default(), begin, begin);
        let (mut looks, mut said, mut works) = (Vec::new(), Vec::new(), Vec::new());
        while minute(now) < 120 {
            now = idle.next_look(used, LIMIT, now);
            looks.push(minute(now));
            match idle.look(Some(does(minute(now))), used, LIMIT, now) {
                Finding::Works => {
                    works.push(minute(now));
                    used = now;
                }
                Finding::Rests => {}
                Finding::StopsAt(_) => said.push(minute(now)),
                Finding::IsOver => return (looks, said, works, Some(minute(now))),
            }
        }
        (looks, said, works, None)
    }

    #[test]
    fn what_nobody_uses_is_stopped_after_that_was_said_and_looked_at_no_more_than_a_few_times() {
        let (looks, said, works, stopped) = play(|_| work(40, 7));
        assert_eq!((looks, said), (vec![5, 10, 15, 18, 20], vec![18]));
        assert_eq!((works, stopped), (vec![], Some(20)));
    }

    #[test]
    fn a_program_that_writes_or_works_is_use_and_one_that_waits_is_not() {
        assert_eq!(play(|minute| work(0, u64::from(minute) * 60)).3, None);
        assert_eq!(play(|minute| work(u64::from(minute) * 30, 0)).3, None);
        let waits = play(|minute| work(u64::from(minute), 0));
        assert_eq!(waits.3, Some(20), "{waits:?}");
        // One that has ended takes its time along, which is a change as well.
        let ended = play(|minute| work(if minute < 12 { 5_000 } else { 100 }, 0));
        assert_eq!(ended.2, [15]);
        assert_eq!(ended.3, Some(35));
    }

    #[test]
    fn work_between_the_word_and_the_stop_takes_the_word_back() {
        let late = play(|minute| work(if minute < 19 { 0 } else { 60_000 }, 0));
        assert_eq!((late.1, late.2, late.3), (vec![18, 38], vec![20], Some(40)));
    }

    #[test]
    fn a_limit_that_was_passed_long_ago_is_said_first_all_the_same() {
        let begin = Instant::now();
        let (mut idle, now) = (Idle::default(), begin + 300 * MINUTE);
        assert_eq!(idle.next_look(begin, LIMIT, now), now);
        let stop_at = now + 2 * MINUTE;
        assert_eq!(
            idle.look(None, begin, LIMIT, now),
            Finding::StopsAt(stop_at)
        );
        assert_eq!(idle.next_look(begin, LIMIT, now), stop_at);
        assert!(idle.used());
        assert!(!idle.used());
        assert_eq!(idle.next_look(now, LIMIT, now), now + 5 * MINUTE);
    }
}
