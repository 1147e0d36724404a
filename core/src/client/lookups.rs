//! Finding images by name, and listing them.
//!
//! A node learns of a new image a moment after it was created, so a name that is unknown is asked for again for a while
//! before it is called missing.

use crate::id::LinkId;
use crate::io::Env;
use crate::msg::{ImageInfo, MapMessage, Message};
use crate::time::{Duration, Time};

/// How long an unknown name is asked for: several times the delay of the metadata store's watches.
const PATIENCE: Duration = Duration::secs(2);
/// Between questions.
const PAUSE: Duration = Duration::millis(100);

#[derive(Clone, Debug)]
struct Lookup {
    token: u64,
    pool: Option<String>,
    name: String,
    missing_since: Option<Time>,
    found: Option<ImageInfo>,
}

/// The names of all images, as far as they were told.
#[derive(Clone, Debug)]
struct Listing {
    token: u64,
    names: Vec<String>,
}

/// Names that are being looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups {
    pending: Vec<Lookup>,
    listings: Vec<Listing>,
    /// Listings that are complete.
    listed: Vec<Listing>,
    ask_at: Option<Time>,
}

impl Lookups {
    /// Whether nothing is being looked up.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.listings.is_empty()
    }

    /// Begins to list the images.
    pub fn list(&mut self, env: &mut Env<'_>, seed: Option<LinkId>, token: u64) {
        let listing = Listing { token, names: Vec::new() };
        if let Some(link) = seed {
            ask_on(env, link, &listing);
        }
        self.listings.push(listing);
    }

    /// Begins to look up `POOL/NAME` or `NAME`.
    pub fn add(&mut self, env: &mut Env<'_>, seed: Option<LinkId>, token: u64, text: &str) {
        let (pool, name) = match text.split_once('/') {
            Some((pool, name)) => (Some(pool.to_string()), name),
            None => (None, text),
        };
        let lookup = Lookup { token, pool, name: name.to_string(), missing_since: None, found: None };
        if let Some(link) = seed {
            ask(env, link, &lookup);
        }
        self.pending.push(lookup);
    }

    /// A connection to a node that serves maps is there, or it is time to ask again.
    pub fn ask(&mut self, env: &mut Env<'_>, seed: Option<LinkId>) {
        self.ask_at = None;
        let Some(link) = seed else { return };
        for lookup in self.pending.iter().filter(|lookup| lookup.found.is_none()) {
            ask(env, link, lookup);
        }
        self.listings.iter().for_each(|listing| ask_on(env, link, listing));
    }

    /// Takes some names of a listing, and asks for more if there are any. An answer that came before, after a question
    /// that was repeated, adds nothing.
    pub fn told(&mut self, env: &mut Env<'_>, seed: Option<LinkId>, token: u64, names: Vec<String>, more: bool) {
        let Some(place) = self.listings.iter().position(|listing| listing.token == token) else { return };
        let listing = &mut self.listings[place];
        let last = listing.names.last().cloned();
        listing.names.extend(names.into_iter().filter(|name| last.as_ref().is_none_or(|last| name > last)));
        if !more {
            self.listed.push(self.listings.swap_remove(place));
        } else if let Some(link) = seed {
            ask_on(env, link, listing);
        }
    }

    /// Takes a listing that is complete.
    pub fn next_listed(&mut self) -> Option<(u64, Vec<String>)> {
        self.listed.pop().map(|listing| (listing.token, listing.names))
    }

    /// Time to ask again, if that is now.
    pub fn is_due(&self, now: Time) -> bool {
        self.ask_at.is_some_and(|at| at <= now)
    }

    /// Takes an answer. Gives the time at which to ask again, if none is set.
    pub fn answered(&mut self, now: Time, token: u64, image: Option<ImageInfo>) -> Option<Time> {
        let lookup = self.pending.iter_mut().find(|lookup| lookup.token == token)?;
        lookup.found = image;
        if lookup.found.is_some() || self.ask_at.is_some() {
            return None;
        }
        lookup.missing_since.get_or_insert(now);
        self.ask_at = Some(now + PAUSE);
        self.ask_at
    }

    /// Takes a lookup that is decided: found in a pool that is known, or missing for long.
    pub fn next_decided(&mut self, now: Time, known: impl Fn(&ImageInfo) -> bool) -> Option<(u64, Option<ImageInfo>)> {
        let missing = |since: Time| now.since(since) >= PATIENCE;
        let decided = |lookup: &Lookup| match &lookup.found {
            Some(image) => known(image),
            None => lookup.missing_since.is_some_and(missing),
        };
        let place = self.pending.iter().position(decided)?;
        let lookup = self.pending.swap_remove(place);
        Some((lookup.token, lookup.found))
    }
}

fn ask(env: &mut Env<'_>, link: LinkId, lookup: &Lookup) {
    let (pool, name) = (lookup.pool.clone(), lookup.name.clone());
    env.out.send(link, Message::Map(MapMessage::FindImage { token: lookup.token, pool, name }));
}

/// Asks for the names after those that are known.
fn ask_on(env: &mut Env<'_>, link: LinkId, listing: &Listing) {
    let after = listing.names.last().cloned();
    env.out.send(link, Message::Map(MapMessage::ListImages { token: listing.token, after }));
}
