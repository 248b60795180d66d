//! The tabs in which a window shows the terminals of a session: kept here for a window that comes back, and told to the agent
//! for an app that does.

use std::sync::Arc;
use std::time::Duration;

use cove_agent::protocol::Call;
use cove_agent::terminal::Tab;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::ConnectedSession;
use crate::connection::{CallFailure, Connection};
use crate::error::Error;
use crate::terminal::tabs::{self, ListedTerminal, TerminalList, TerminalTab};

/// How long until the agent is told again that did not answer.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long a window waits for the agent to know; it is told all the same when it answers later.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tabs of a session.
pub(super) struct Tabs {
    /// With how often they have changed.
    wanted: watch::Sender<(u64, Vec<Tab>)>,
    /// Which of these changes the agent knows, or refuses to.
    told: watch::Receiver<u64>,
}

impl Tabs {
    /// Returns those that the agent knows, and tells it of others until the connection is closed.
    pub(super) fn new(known: Vec<Tab>, agent: &Arc<Connection>, tracker: &TaskTracker) -> Self {
        let (wanted, changed) = watch::channel((0, known));
        let (told, heard) = watch::channel(0);
        let agent = Arc::clone(agent);
        tracker.spawn(async move {
            tokio::select! {
                () = agent.closed() => {}
                () = tell(&agent, changed, told) => {}
            }
        });
        Self {
            wanted,
            told: heard,
        }
    }

    /// Returns the tabs that these terminals are in.
    fn of(&self, ids: &[String]) -> Vec<TerminalTab> {
        tabs::of(ids, &self.wanted.borrow().1)
    }

    /// Keeps others instead, and returns when the agent knows, or is known not to for now.
    async fn keep(&self, tabs: Vec<Tab>) {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            number = wanted.0 + 1;
            *wanted = (number, tabs);
        });
        let mut told = self.told.clone();
        // Without an answer it is told later.
        let _ = timeout(PATIENCE, told.wait_for(|told| *told >= number)).await;
    }
}

/// Tells the agent of the newest tabs, again until it answers.
async fn tell(
    agent: &Connection,
    mut wanted: watch::Receiver<(u64, Vec<Tab>)>,
    told: watch::Sender<u64>,
) {
    while wanted.changed().await.is_ok() {
        loop {
            let (number, tabs) = wanted.borrow_and_update().clone();
            match agent.call(Call::ArrangeTerminals { tabs }, &[]).await {
                Ok(_) => {}
                // One of an earlier version knows nothing of tabs.
                Err(CallFailure::Refused(error)) => log::debug!("tabs are not kept: {error}"),
                Err(failure) => {
                    log::debug!("tabs are not kept yet: {}", failure.into_error());
                    sleep(TRY_AGAIN).await;
                    continue;
                }
            }
            told.send_replace(number);
            break;
        }
    }
}

impl ConnectedSession {
    /// Returns its terminals, and the tabs that they are in.
    #[must_use]
    pub fn list_terminals(&self) -> TerminalList {
        let terminals = self.open.terminals();
        let listed = terminals.iter().map(|terminal| ListedTerminal {
            terminal_id: terminal.id().to_owned(),
            running: terminal.is_running(),
        });
        let listed: Vec<_> = listed.collect();
        drop(terminals);
        let ids: Vec<_> = listed.iter().map(|it| it.terminal_id.clone()).collect();
        TerminalList {
            terminals: listed,
            tabs: self.open.tabs.of(&ids),
        }
    }

    /// Keeps in which tabs a window shows its terminals, for the next window and the next app.
    ///
    /// # Errors
    /// [`Error::Validation`] for more than there may be.
    pub async fn arrange_terminals(&self, tabs: Vec<TerminalTab>) -> Result<(), Error> {
        self.open.tabs.keep(tabs::to_keep(tabs)?).await;
        Ok(())
    }
}
