//! Finding and searching in a ready session: which searches are under way, and their end.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ConnectedSession, ReadySession};
use crate::error::Error;
use crate::search::{
    self, FoundFiles, MOST_SEARCHES, NameQuery, SearchNews, SearchSink, Searching, TextQuery,
};

/// The searches of a session that are under way, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Searches(Mutex<Vec<(String, CancellationToken)>>);

impl Searches {
    /// Adds one; those that are too many then are ended.
    fn add(&self) -> (String, CancellationToken) {
        let new = (Uuid::new_v4().to_string(), CancellationToken::new());
        let mut searches = self.0.lock();
        searches.push(new.clone());
        let too_many = searches.len().saturating_sub(MOST_SEARCHES);
        for (_, wanted) in searches.drain(..too_many) {
            wanted.cancel();
        }
        new
    }

    /// Ends one; it may have ended already.
    fn end(&self, id: &str) {
        self.0.lock().retain(|(known, wanted)| {
            let is_it = known == id;
            if is_it {
                wanted.cancel();
            }
            !is_it
        });
    }
}

impl ReadySession {
    /// See [`search::find_files`].
    ///
    /// # Errors
    /// Those, and [`Error::SessionNotReady`].
    pub async fn find_files(&self, query: &NameQuery) -> Result<FoundFiles, Error> {
        let open = &self.0.open;
        open.unless_paused(search::find_files(&open.connection, query))
            .await
    }

    /// Begins a search and returns its id. `sink` hears what is found, and how it ended.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the part of the query that cannot be; [`Error::SessionNotReady`],
    /// [`Error::AgentUnavailable`].
    pub async fn search_files(&self, query: TextQuery, sink: SearchSink) -> Result<String, Error> {
        let open = Arc::clone(&self.0.open);
        let begin = Searching::begin(&open.connection, query);
        let mut searching = open.unless_paused(begin).await?;
        let (search_id, wanted) = open.searches.add();
        let named = search_id.clone();
        self.0.sessions.shared.tracker.spawn(async move {
            loop {
                let Some(news) = wanted.run_until_cancelled(searching.next()).await else {
                    sink(SearchNews::End(searching.cancelled()));
                    break;
                };
                let is_end = matches!(news, SearchNews::End(_));
                // What is only a sign of life is nothing to be told.
                if news != SearchNews::Files(Vec::new()) {
                    sink(news);
                }
                if is_end {
                    break;
                }
            }
            open.searches.end(&named);
        });
        Ok(search_id)
    }
}

impl ConnectedSession {
    /// Ends a search early, if it has not ended already.
    pub fn cancel_search(&self, search_id: &str) {
        self.open.searches.end(search_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_search_more_than_there_may_be_ends_the_oldest() {
        let searches = Searches::default();
        let under_way: Vec<_> = (0..=MOST_SEARCHES).map(|_| searches.add().1).collect();
        let ended: Vec<_> = under_way
            .iter()
            .map(CancellationToken::is_cancelled)
            .collect();
        assert_eq!(ended, [true, false, false, false]);
        searches.end("none of them");
        let (id, wanted) = searches.add();
        searches.end(&id);
        assert!(wanted.is_cancelled());
        assert!(!under_way[2].is_cancelled());
    }
}
