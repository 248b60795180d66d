//! The ports of a ready session: what its programs listen on, heard from the agent as it changes, and what of it is forwarded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cove_agent::protocol::{Call, Reply};
use tokio::time::Instant;

use super::entry::OpenSession;
use super::{ConnectedSession, ReadySession, Sessions};
use crate::error::Error;
use crate::event::PortsEvent;
use crate::session::{LocalPlace, PortList, SessionId};

/// The ports are heard no more often: whatever answers in the agent's place, the window has time for it.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// How long to wait before the agent is asked again, over a connection that broke.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long to wait before an agent is asked again that refused.
const REFUSED: Duration = Duration::from_secs(30);

impl ReadySession {
    /// Returns the ports that programs of the session listen on, and those that are forwarded.
    #[must_use]
    pub fn list_ports(&self) -> PortList {
        self.0.ports()
    }

    /// Forwards a port to this machine, whether or not somebody listens on it: to a certain port if one is named, else to the
    /// same number if that is free.
    ///
    /// # Errors
    /// [`Error::Validation`] for numbers that are none, for a port of this machine that cannot be had, and for more than
    /// [`MOST_FORWARDED`](crate::ports::MOST_FORWARDED) ports.
    pub fn forward_port(&self, port: u16, local_port: Option<u16>) -> Result<PortList, Error> {
        let ConnectedSession { sessions, id, open } = &self.0;
        open.ports.forward(port, local_port)?;
        sessions.tell_ports(*id, open);
        Ok(self.0.ports())
    }

    /// Returns where a port is on this machine; forwards it if it is not.
    ///
    /// # Errors
    /// Those of [`Self::forward_port`].
    pub fn place_of_port(&self, port: u16) -> Result<LocalPlace, Error> {
        let place = |list: PortList| {
            let mut ports = list.ports.into_iter();
            ports.find(|known| known.port == port)?.local
        };
        if let Some(place) = place(self.list_ports()) {
            return Ok(place);
        }
        let forwarded = place(self.forward_port(port, None)?);
        forwarded.ok_or_else(|| Error::field("port", "is not forwarded any more"))
    }
}

impl ConnectedSession {
    /// Forwards a port no longer, also not by itself; its connections are broken off. Does nothing when it is not forwarded.
    pub async fn unforward_port(&self, port: u16) -> PortList {
        self.open.ports.unforward(port).await;
        self.sessions.tell_ports(self.id, &self.open);
        self.ports()
    }

    fn ports(&self) -> PortList {
        self.open.ports.tell(|ports, truncated| PortList {
            ports,
            truncated,
            seq: self.sessions.shared.port_news.load(Ordering::Relaxed),
        })
    }
}

impl Sessions {
    /// Follows the ports of a session for as long as it is ready.
    pub(super) fn attend_ports(&self, id: SessionId, open: Arc<OpenSession>) {
        let sessions = self.clone();
        self.shared.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = open.connection.closed() => {}
                () = sessions.follow_ports(id, &open) => {}
            }
        });
    }

    async fn follow_ports(&self, id: SessionId, open: &Arc<OpenSession>) {
        let mut settings = self.shared.settings.subscribe();
        loop {
            open.connection.until(true).await;
            let pause = match open.connection.stream(Call::WatchPorts).await {
                Err(_) => TRY_AGAIN,
                Ok(answers) => {
                    let mut answers = answers.that_come_seldom();
                    let mut not_before = Instant::now();
                    loop {
                        let next = async {
                            tokio::time::sleep_until(not_before).await;
                            answers.next().await
                        };
                        let heard = tokio::select! {
                            heard = next => heard,
                            // What is set now holds also when nobody can say that it changes.
                            Ok(()) = settings.changed() => {
                                if open.ports.set_automatic(self.settings().forward_ports) {
                                    self.tell_ports(id, open);
                                }
                                continue;
                            }
                        };
                        not_before = Instant::now() + AT_MOST_EVERY;
                        match heard {
                            Some(Ok((Reply::WatchPorts { ports, truncated }, _))) => {
                                let automatic = self.settings().forward_ports;
                                if open.ports.hear(ports, truncated, automatic) {
                                    self.tell_ports(id, open);
                                }
                            }
                            Some(Ok(_)) => break REFUSED,
                            Some(Err(error)) => {
                                log::warn!("the ports of session {id} are not known: {error}");
                                break REFUSED;
                            }
                            None => break TRY_AGAIN,
                        }
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the ports of a session. What is told later is newer.
    fn tell_ports(&self, id: SessionId, open: &OpenSession) {
        open.ports.tell(|ports, truncated| {
            let seq = self.shared.port_news.fetch_add(1, Ordering::Relaxed) + 1;
            self.shared.reporter.ports_changed(&PortsEvent {
                session_id: id,
                list: PortList {
                    ports,
                    truncated,
                    seq,
                },
            });
        });
    }
}
