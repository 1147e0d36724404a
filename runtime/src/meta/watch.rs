//! One watch, for as long as somebody wants it: opened again after each loss of the connection, from where it was.
//!
//! ```text
//!            opened                    compacted, or ended by the store
//!  Opening ---------> Following -------------------------------------> lost (told once)
//!     ^ |                 |
//!     | +-- failed --+    | connection lost (if its member was left, also while it opens: without a pause)
//!     |              v    v
//!     +------------ Pausing
//! ```
//! Invariant: events reach the owner without gap or duplicate, in order of revision, whole revisions at a time.

use super::client::{Client, RequestError};
use super::convert;
use ashlar_core::io::{MetaEvent, MetaId};
use ashlar_core::meta::WatchEvent;
use etcd_client::{WatchResponse, WatchStream};
use std::time::Duration;

/// First pause after a failure; doubles up to [`PAUSE_MAX`]. A restarted store answers within it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a store that comes back is noticed soon after.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// In a member's reason to end a watch: log in again.
const REFUSED_TOKENS: [&str; 3] = ["permission denied", "invalid auth token", "revision of auth store is old"];

/// Why following a stream ended.
enum Ended {
    /// The connection: open the watch again.
    Connection,
    /// The member: others have left it, since it is silent.
    Moved,
    /// The store: it is of no use to ask again.
    Lost,
}

/// A watch and its place.
pub(super) struct Watch {
    pub(super) id: MetaId,
    pub(super) prefix: String,
    /// The first revision that was not delivered.
    pub(super) next: u64,
}

impl Watch {
    /// Delivers events until the store cannot go on.
    pub(super) async fn run(mut self, client: &Client, deliver: &dyn Fn(MetaEvent)) {
        // etcd takes 0 for "from now on".
        self.next = self.next.max(1);
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.next;
            // From before the member is chosen: no move after that is missed.
            let mut moves = client.moves();
            let ended = tokio::select! {
                ended = self.open_and_follow(client, deliver) => ended,
                _ = moves.changed() => Ended::Moved,
            };
            match ended {
                Ended::Lost => return deliver(MetaEvent::WatchLost { id: self.id }),
                Ended::Moved => continue,
                Ended::Connection => {}
            }
            pause = if self.next > before { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn open_and_follow(&mut self, client: &Client, deliver: &dyn Fn(MetaEvent)) -> Ended {
        match client.watch(&self.prefix, self.next).await {
            Ok(stream) => self.follow(client, stream, deliver).await,
            Err(RequestError::Refused(_)) => Ended::Lost,
            Err(RequestError::Unknown(_) | RequestError::Unavailable(_)) => Ended::Connection,
        }
    }

    async fn follow(&mut self, client: &Client, mut stream: WatchStream, deliver: &dyn Fn(MetaEvent)) -> Ended {
        loop {
            let Ok(Some(response)) = stream.message().await else { return Ended::Connection };
            if response.canceled() {
                return self.why_cancelled(client, &response);
            }
            match self.fresh_events(&response) {
                Ok(events) if events.is_empty() => (),
                Ok(events) => deliver(MetaEvent::Watch { id: self.id, revision: self.next - 1, events }),
                Err(_) => return Ended::Lost,
            }
        }
    }

    /// A watch's token is as old as its stream: a member that knows it no more (it was restarted, or the token has
    /// expired) refuses as if the user might not read. Nothing is lost then.
    fn why_cancelled(&self, client: &Client, response: &WatchResponse) -> Ended {
        let reason = response.cancel_reason();
        if response.compact_revision() > 0 || !REFUSED_TOKENS.iter().any(|refusal| reason.contains(refusal)) {
            return Ended::Lost;
        }
        tracing::debug!("the watch of {} was refused: {reason}; logging in again", self.prefix);
        client.log_out();
        Ended::Connection
    }

    /// The events that were not delivered before; moves on behind them.
    fn fresh_events(&mut self, response: &WatchResponse) -> Result<Vec<WatchEvent>, RequestError> {
        let from = self.next;
        let mut events = Vec::with_capacity(response.events().len());
        for event in response.events() {
            let (revision, event) = convert::watch_event(event)?;
            if revision >= from {
                self.next = self.next.max(revision + 1);
                events.push(event);
            }
        }
        Ok(events)
    }
}
