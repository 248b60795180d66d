//! What is done to a session beside making it ready: stop, restart, rename, rebuild, duplicate, discard,
//! delete. Each waits for its turn, so that the same command twice at once does no harm, and succeeds
//! when what it wants is so already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::entry::{Activity, OpenSession};
use super::registry::lasting;
use super::{Entry, Sessions};
use crate::engine::{ContainerState, Owned, end_programs, in_time, in_time_beyond};
use crate::error::Error;
use crate::image::ImageReference;
use crate::journal::Undo;
use crate::provision::{IfAbsent, remove_unused};
use crate::session::{SessionId, SessionStatus, Source, check_project_name};

impl Sessions {
    /// Stops the session's container; its files stay. Ends a run that is under way. Programs have as long
    /// to end by themselves as the settings say, and their terminals stay until then.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], and what the engine answers.
    pub async fn stop(&self, id: SessionId) -> Result<(), Error> {
        self.stop_within(id, self.settings().stop_grace()).await
    }

    /// Waits no longer for programs that are being ended, by whatever command. Stops the session if none is.
    ///
    /// # Errors
    /// Those of [`Self::stop`].
    pub async fn stop_now(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        let under_way = |entry: &Entry| (entry.ending.clone(), is_running(entry));
        match self.with_entry(id, under_way)? {
            (Some(hurry), true) => hurry.cancel(),
            (Some(hurry), false) => {
                hurry.cancel();
                // Whoever ends them has the turn; what follows, as after the stop of a restart, is not stopped.
                let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
                drop(turn.lock().await);
            }
            (None, true) => {}
            (None, false) => self.stop_within(id, Duration::ZERO).await?,
        }
        Ok(())
    }

    async fn stop_within(&self, id: SessionId, grace: Duration) -> Result<(), Error> {
        self.know(id).await?;
        self.cancel_run(id).await?;
        let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
        let _turn = turn.lock().await;
        let Some(home) = self.home_of(id).await? else {
            return Ok(());
        };
        // The session goes on as it is while its engine is away.
        let engine = self.shared.engines.reach(&home).await?;
        let (open, hurry) = self.part(id)?;
        let stopped = in_time_beyond(grace, "stop the session", async {
            for container in engine.owned(Some(id)).await?.containers {
                match container.state {
                    ContainerState::Running | ContainerState::Paused => {
                        self.shared.note_ending(id, Some(hurry.clone()));
                        end_programs(&*engine, &container.id, grace, &hurry).await?;
                    }
                    ContainerState::Created | ContainerState::Exited | ContainerState::Unusable => {
                    }
                }
            }
            Ok(())
        })
        .await;
        self.shared.note_ending(id, None);
        if let Some(open) = open {
            open.close();
        }
        stopped?;
        self.look_again_at(&home).await;
        Ok(())
    }

    /// Ends the use of a ready session, but for its terminals: programs may have something left to write.
    /// Returns them with what ends the wait for that.
    fn part(&self, id: SessionId) -> Result<(Option<Arc<OpenSession>>, CancellationToken), Error> {
        let mut entries = self.shared.entries();
        let entry = entries
            .get_mut(&id)
            .ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
        let hurry = CancellationToken::new();
        let open = entry.activity.connected().cloned();
        if let Some(open) = &open {
            open.connection.close();
            entry.activity = Activity::stopped();
            entry.ending = Some(hurry.clone());
        }
        Ok((open, hurry))
    }

    /// Stops the session's container and makes the session ready again. Does nothing to one that is on
    /// the way.
    ///
    /// # Errors
    /// Those of [`Self::stop`] and [`Self::open`].
    pub async fn restart(&self, id: SessionId) -> Result<SessionStatus, Error> {
        self.know(id).await?;
        if !self.with_entry(id, is_running)? {
            self.stop(id).await?;
        }
        self.open(id).await
    }

    /// Gives a session another name. Labels cannot be changed, so the name is kept beside them until
    /// the session gets a new container.
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::SessionNotFound`].
    pub async fn rename(&self, id: SessionId, name: &str) -> Result<String, Error> {
        let name = name.trim();
        if name.is_empty() {
            return Err(Error::field("name", "must not be empty"));
        }
        check_project_name(name).map_err(|problem| Error::field("name", problem))?;
        self.know(id).await?;
        {
            let mut entries = self.shared.entries();
            let entry = entries
                .get_mut(&id)
                .ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
            entry.request.project_name = Some(name.to_owned());
        }
        self.change_names(|names| names.insert(id, name.to_owned()));
        Ok(name.to_owned())
    }

    /// Makes a new container around the same volume: from another image, or from the same with the
    /// limits that are set now. The old container is removed when the new one is ready, and comes back
    /// when it does not get ready. Does nothing to a session that is on the way.
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::SessionNotFound`].
    pub async fn rebuild(
        &self,
        id: SessionId,
        image: Option<&str>,
    ) -> Result<SessionStatus, Error> {
        self.rebuild_allowing(id, image, None).await
    }

    /// Does the same, and changes whether programs may become root by `sudo` and the like; `None` leaves it.
    ///
    /// # Errors
    /// Those of [`Self::rebuild`].
    pub async fn rebuild_allowing(
        &self,
        id: SessionId,
        image: Option<&str>,
        privilege_gain: Option<bool>,
    ) -> Result<SessionStatus, Error> {
        let image = image.map(str::trim).filter(|image| !image.is_empty());
        let image = image.map(str::parse::<ImageReference>).transpose();
        let image = image.map_err(|problem| Error::field("image", problem.to_string()))?;
        self.know(id).await?;
        self.unless_away(id).await?;
        let mut entries = self.shared.entries();
        let entry = lasting(&mut entries, id)?;
        if !is_running(entry) {
            let mut request = entry.request.clone();
            if let Some(image) = image.filter(|image| *image != request.image) {
                // It is no longer what the template made.
                request.template = None;
                request.image = image;
            }
            request.allow_privilege_gain = privilege_gain.unwrap_or(request.allow_privilege_gain);
            self.start_run_of(id, entry, request, true);
        }
        Ok(entry.status(id))
    }

    /// Creates a session like another, with a copy of its files. Files that change meanwhile are copied
    /// as they are at that moment.
    ///
    /// # Errors
    /// [`Error::Validation`]; [`Error::SessionNotReady`] for one without a container to read from; what
    /// the engine answers.
    pub async fn duplicate(&self, id: SessionId, name: Option<&str>) -> Result<SessionId, Error> {
        let name = name.map(str::trim).filter(|name| !name.is_empty());
        if let Some(name) = name {
            check_project_name(name).map_err(|problem| Error::field("project_name", problem))?;
        }
        self.container_of(id).await?;
        let home = self.home_of(id).await?;
        let (original, mut request) =
            self.with_entry(id, |entry| (entry.session(id), entry.request.clone()))?;
        request.project_name = Some(match name {
            Some(name) => name.to_owned(),
            None => format!("{} copy", original.name),
        });
        Ok(self.begin(request, Some(Source::Session { id }), home))
    }

    /// Takes back what an interrupted run has done. A session that the run was to create is gone then;
    /// one that was there before is as it was. Does nothing to a session that is not interrupted.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; what the engine answers, and then it is tried again by itself.
    pub async fn discard(&self, id: SessionId) -> Result<(), Error> {
        self.know(id).await?;
        let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
        let _turn = turn.lock().await;
        let is_interrupted = |entry: &Entry| matches!(entry.activity, Activity::Interrupted);
        if !self.with_entry(id, is_interrupted)? {
            return Ok(());
        }
        let home = self.home_of(id).await?;
        if let Some(home) = &home {
            let engine = self.shared.engines.reach(home).await?;
            in_time("discard the session", engine.facts()).await?;
        }
        let record = {
            let mut entries = self.shared.entries();
            let entry = entries
                .get_mut(&id)
                .ok_or_else(|| Error::SessionNotFound(id.to_string()))?;
            // The journal may be lost. Then only what was never started is known to be unfinished.
            if entry.leftovers.is_empty()
                && entry.on_engine.container == Some(ContainerState::Created)
            {
                entry.leftovers.push(Undo::RemoveContainer {
                    name: id.resource_name(),
                    spare: None,
                });
            }
            entry.activity = Activity::stopped();
            entry.leftover_record(id)
        };
        let Some(home) = home else {
            // Every engine of this machine was asked, and none knows of the session.
            self.forget_nowhere(id).await;
            return Ok(());
        };
        let taken_back = if let Some(record) = record {
            self.take_back(id, record, IfAbsent::Done).await
        } else {
            self.shared.journal.forget(id).await;
            Ok(())
        };
        self.look_again_at(&home).await;
        taken_back
    }

    /// Forgets a session of which nothing is on any engine.
    async fn forget_nowhere(&self, id: SessionId) {
        self.shared.journal.forget(id).await;
        self.shared.entries().remove(&id);
        self.shared.deleted.fetch_add(1, Ordering::SeqCst);
    }

    /// Deletes a session with its container and its volume. Succeeds for what is gone already; never
    /// touches what is not this session's.
    ///
    /// # Errors
    /// What the engine answers; the session is still there then.
    pub async fn delete(&self, id: SessionId) -> Result<(), Error> {
        self.remove(id, false).await
    }

    /// Deletes a session's container and keeps its volume, from which it can be opened again.
    ///
    /// # Errors
    /// Those of [`Self::delete`].
    pub async fn delete_container(&self, id: SessionId) -> Result<(), Error> {
        self.remove(id, true).await
    }

    async fn remove(&self, id: SessionId, keep_volume: bool) -> Result<(), Error> {
        if let Some(entry) = self.shared.entries().get_mut(&id) {
            entry.deletions += 1;
        }
        // Whatever it is that does not answer, a run that is to end or the engine itself, is told in time.
        let removal = self.remove_from_engine(id, keep_volume);
        let removed = in_time("delete the session", removal).await;
        if let Some(entry) = self.shared.entries().get_mut(&id) {
            entry.deletions = entry.deletions.saturating_sub(1);
        }
        match removed {
            // It was gone already, or somebody else has deleted it meanwhile.
            Err(Error::SessionNotFound(_)) => Ok(()),
            removed => removed,
        }
    }

    async fn remove_from_engine(&self, id: SessionId, keep_volume: bool) -> Result<(), Error> {
        self.know(id).await?;
        self.cancel_run(id).await?;
        let turn = self.with_entry(id, |entry| Arc::clone(&entry.turn))?;
        let _turn = turn.lock().await;
        let home = self.home_of(id).await?;
        let owned = match &home {
            None => Owned::default(),
            Some(home) => {
                let engine = self.shared.engines.reach(home).await?;
                self.close(id);
                let owned = engine.owned(Some(id)).await?;
                for container in &owned.containers {
                    engine.remove_container(&container.id).await?;
                }
                // While the volume is there, so is the session, and what is left of it can be deleted again.
                remove_unused(&*engine, id, None).await?;
                if !keep_volume {
                    for (name, _) in &owned.volumes {
                        engine.remove_volume(name).await?;
                    }
                }
                // Nothing is forgotten on the word of an engine that was put in the place of this one.
                engine.facts().await?;
                owned
            }
        };
        // Whatever was to be taken back is gone now, or is to be kept.
        self.shared.journal.forget(id).await;
        let is_kept = keep_volume && !owned.volumes.is_empty();
        {
            let mut entries = self.shared.entries();
            match entries.get_mut(&id) {
                Some(entry) if is_kept => {
                    entry.leftovers.clear();
                    // What a later run takes back is not all that there is of it.
                    entry.is_new = false;
                    entry.on_engine.container = None;
                    entry.activity = Activity::stopped();
                }
                Some(_) | None => {
                    entries.remove(&id);
                    self.shared.deleted.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        self.shared.keep_sessions();
        if !is_kept {
            self.change_names(|names| names.remove(&id));
            self.forget_drafts(id).await;
            let mut history = self.shared.history();
            if history.forget_report(&id.to_string()) {
                self.shared.keep.history(&history);
            }
        }
        Ok(())
    }

    fn change_names<T>(&self, change: impl FnOnce(&mut super::Names) -> Option<T>) {
        let mut names = self.shared.names();
        let before = names.len();
        if change(&mut names).is_some() || names.len() != before {
            self.shared.keep.names(&names);
        }
    }
}

fn is_running(entry: &Entry) -> bool {
    matches!(entry.activity, Activity::Provisioning { .. })
}
