//! What ends a session's being ready, and what holds it up: a connection that breaks, a container that ends, and that nobody
//! uses it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::Sessions;
use super::entry::{Activity, OpenSession, Reach};
use super::idle::{Finding, Idle};
use crate::processes;
use crate::session::SessionId;

/// How long a connection may be broken before that is told.
const BLINK: Duration = Duration::from_secs(1);
/// How long until it is looked again whether the container runs whose agent fell silent, at first and at most. Docker
/// tells of an end a moment before its list does.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

impl Sessions {
    /// Says when the connection to a ready session breaks and heals, and stops a session that nobody uses.
    pub(super) fn attend(&self, id: SessionId, open: Arc<OpenSession>) {
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            tokio::select! {
                // Whoever has closed it knows what becomes of the session: nobody looks any more.
                biased;
                () = open.connection.closed() => {}
                () = sessions.follow_connection(id, &open) => {}
                limit = sessions.left_alone(id, &open) => {
                    log::info!("session {id} is stopped: nobody uses it");
                    match sessions.stop(id).await {
                        Ok(()) => sessions.note_stopped_unused(id, limit),
                        Err(error) => log::warn!("failed to stop session {id}: {error}"),
                    }
                }
            }
        });
    }

    async fn follow_connection(&self, id: SessionId, open: &Arc<OpenSession>) {
        let connection = &open.connection;
        loop {
            connection.until(false).await;
            let told = async {
                // What heals at once is not worth a word.
                tokio::time::sleep(BLINK).await;
                self.note_reach(id, open, Reach::Reconnecting);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = connection.until(true) => self.note_reach(id, open, Reach::Connected),
                () = self.look_whether_it_runs(id) => {}
                () = told => {}
            }
        }
    }

    /// Looks again and again whether the container runs whose agent does not answer: an engine that is not
    /// followed says so only when it is asked.
    async fn look_whether_it_runs(&self, id: SessionId) {
        let mut pause = LOOK_AGAIN.0;
        loop {
            if let Ok(Some(engine)) = self.home_of(id).await {
                let sessions = self.clone();
                // A look that finds the session gone ends the wait for it, and still has its network to remove.
                let look = async move { sessions.look_again_at(&engine).await };
                // It does not panic, and if it did, there is another look.
                let _ = self.shared.tracker.spawn(look).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    fn note_reach(&self, id: SessionId, open: &Arc<OpenSession>, reach: Reach) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        // The session may have been stopped and opened anew meanwhile.
        let current = entry.activity.connected();
        if current.is_some_and(|current| Arc::ptr_eq(current, open)) && !open.is_paused() {
            open.set_reach(reach);
        }
    }

    /// Returns when the session has been left alone for as long as the settings allow, and how long that is. That it is
    /// going to be stopped is told before.
    async fn left_alone(&self, id: SessionId, open: &Arc<OpenSession>) -> Duration {
        let mut settings = self.shared.settings.subscribe();
        let mut last_use = open.uses();
        let mut idle = Idle::default();
        loop {
            let limit = self.settings().idle_stop();
            let used = *last_use.borrow_and_update();
            let look = limit.map(|limit| idle.next_look(used, limit, Instant::now()));
            let until_look = async {
                match look {
                    Some(look) => tokio::time::sleep_until(look).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until_look => {}
                changed = settings.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    if idle.used() {
                        self.note_idle_stop(id, open, None);
                    }
                    continue;
                }
                // Before it is said, a use only moves the next look.
                _ = last_use.changed(), if idle.is_said() => {}
            }
            if *last_use.borrow() > used {
                if idle.used() {
                    self.note_idle_stop(id, open, None);
                }
                continue;
            }
            let Some(limit) = limit else { continue };
            let work = processes::work(&open.connection).await.ok();
            let is_said = idle.is_said();
            match idle.look(work, used, limit, Instant::now()) {
                Finding::Works => {
                    open.touch();
                    if is_said {
                        self.note_idle_stop(id, open, None);
                    }
                }
                Finding::Rests => {}
                Finding::StopsAt(at) => self.note_idle_stop(id, open, Some(at)),
                Finding::IsOver => return limit,
            }
        }
    }

    /// Takes note of when a session is going to be stopped because nobody uses it, or that it is not.
    fn note_idle_stop(&self, id: SessionId, open: &Arc<OpenSession>, at: Option<Instant>) {
        let at_ms = at.map(|at| {
            let then = SystemTime::now() + at.saturating_duration_since(Instant::now());
            let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        let current = entry.activity.connected();
        if current.is_some_and(|current| Arc::ptr_eq(current, open)) {
            open.set_idle_stop_ms(at_ms);
        }
    }

    fn note_stopped_unused(&self, id: SessionId, limit: Duration) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.get_mut(&id)
            && let Activity::Stopped { .. } = entry.activity
        {
            entry.stopped_unused_minutes = Some(limit.as_secs() / 60);
        }
    }

    /// Ends the connection to a ready session, with its terminals.
    pub(super) fn close(&self, id: SessionId) {
        let mut entries = self.shared.entries();
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        if let Some(open) = entry.activity.connected() {
            open.close();
            entry.activity = Activity::stopped();
        }
    }
}
