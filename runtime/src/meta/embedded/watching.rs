//! One watch stream: several watches of one client, which come and go.
//!
//! Owns the watches and their order on the stream. The store is asked once for all of them, by a condition that waits in
//! the engine and sees the present set of watches.
//!
//! Invariants: a watch's events come after its `created` and before its `canceled`, in order, whole revisions; what the
//! engine handed over is sent before the engine is asked again, so that nothing is skipped.

use super::api::{self, header, mvccpb, proto, revision};
use super::engine::{Engine, Stopped};
use ashlar_core::meta::{Change, ChangeKind, Compacted, Store, Watcher};
use proto::watch_create_request::FilterType;
use proto::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Clients that ask for it are told so often how far the store is, as by etcd.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Events of one message, about; a revision is never split.
const EVENTS: usize = 1_000;
/// What etcd gives in place of a watch's id when it means none, or all.
const NO_WATCH: i64 = -1;

struct Watch {
    watcher: Watcher,
    previous: bool,
    wants_progress: bool,
    /// Kinds of changes that it does not want.
    without: Vec<FilterType>,
}

impl Watch {
    fn wants(&self, change: &Change) -> bool {
        let without = match change.kind {
            ChangeKind::Put(_) => FilterType::Noput,
            ChangeKind::Delete(_) => FilterType::Nodelete,
        };
        !self.without.contains(&without)
    }
}

/// What the client waits to be told besides events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Nothing,
    /// How far all watches are, because it asked.
    OfAll,
    /// How far each watch is that wants to know.
    OfEach,
}

struct Watches {
    by_id: BTreeMap<i64, Watch>,
    progress: Progress,
}

/// What the store had for the stream, as of one revision.
struct News {
    revision: u64,
    of: Vec<(i64, Result<Vec<mvccpb::Event>, Compacted>)>,
    progress: Progress,
}

/// See the module.
pub(super) struct Watching {
    engine: Arc<Engine>,
    answers: mpsc::Sender<Result<proto::WatchResponse, Status>>,
    watches: Arc<Mutex<Watches>>,
    next_id: i64,
}

/// The client is gone, or the store: the stream ends.
struct Gone;

impl From<Stopped> for Gone {
    fn from(_: Stopped) -> Gone {
        Gone
    }
}

impl Watching {
    pub(super) fn new(engine: Arc<Engine>, answers: mpsc::Sender<Result<proto::WatchResponse, Status>>) -> Watching {
        let watches = Watches { by_id: BTreeMap::new(), progress: Progress::Nothing };
        Watching { engine, answers, watches: Arc::new(Mutex::new(watches)), next_id: 0 }
    }

    /// Serves the stream to its end.
    pub(super) async fn run(mut self, mut requests: Streaming<proto::WatchRequest>) {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.tick().await;
        let mut news = Box::pin(news(Arc::clone(&self.engine), Arc::clone(&self.watches)));
        loop {
            let done = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) | Err(_) => Err(Gone),
                },
                arrived = &mut news => match arrived {
                    Ok(arrived) => {
                        let told = self.tell(arrived).await;
                        news.set(self::news(Arc::clone(&self.engine), Arc::clone(&self.watches)));
                        told
                    }
                    Err(Stopped) => self.end(Stopped.into()).await,
                },
                _ = ticks.tick() => self.ask_progress(Progress::OfEach).await,
                () = self.answers.closed() => Err(Gone),
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn end(&self, status: Status) -> Result<(), Gone> {
        let _ = self.answers.send(Err(status)).await;
        Err(Gone)
    }

    async fn send(&self, response: proto::WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(response)).await.map_err(|_| Gone)
    }

    async fn handle(&mut self, request: proto::WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress(Progress::OfAll).await,
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: proto::WatchCreateRequest) -> Result<(), Gone> {
        let now = self.engine.run(|store, _| store.revision()).await?;
        let without: Vec<FilterType> = request.filters().collect();
        let id = match request.watch_id {
            0 => self.unused_id(),
            id => id,
        };
        let keys = match api::span(request.key, request.range_end) {
            Ok(_) if self.lock().by_id.contains_key(&id) => Err("etcdserver: duplicate watch ID".to_string()),
            Ok(keys) => Ok(keys),
            Err(status) => Err(status.message().to_string()),
        };
        let keys = match keys {
            Ok(keys) => keys,
            Err(reason) => return self.refuse(reason, now).await,
        };
        let from = match revision(request.start_revision) {
            0 => now + 1,
            from => from,
        };
        self.send(proto::WatchResponse { header: header(now), watch_id: id, created: true, ..Default::default() })
            .await?;
        let watcher = Watcher::new(keys, from);
        let watch = Watch { watcher, previous: request.prev_kv, wants_progress: request.progress_notify, without };
        self.lock().by_id.insert(id, watch);
        self.wake().await
    }

    fn unused_id(&mut self) -> i64 {
        while self.lock().by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn refuse(&self, reason: String, now: u64) -> Result<(), Gone> {
        let response = proto::WatchResponse {
            header: header(now),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..Default::default()
        };
        self.send(response).await
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        if self.lock().by_id.remove(&id).is_none() {
            return Ok(());
        }
        let now = self.engine.run(|store, _| store.revision()).await?;
        self.send(proto::WatchResponse { header: header(now), watch_id: id, canceled: true, ..Default::default() })
            .await
    }

    async fn ask_progress(&self, progress: Progress) -> Result<(), Gone> {
        self.lock().progress = progress;
        self.wake().await
    }

    /// Lets the engine look at the watches again: any job does.
    async fn wake(&self) -> Result<(), Gone> {
        Ok(self.engine.run(|_, _| ()).await?)
    }

    async fn tell(&self, news: News) -> Result<(), Gone> {
        for (id, events) in news.of {
            // The client may have cancelled it meanwhile.
            if !self.lock().by_id.contains_key(&id) {
                continue;
            }
            match events {
                Ok(events) => self.tell_events(id, events, news.revision).await?,
                Err(compacted) => self.tell_compacted(id, compacted, news.revision).await?,
            }
        }
        let ids: Vec<i64> = match news.progress {
            Progress::Nothing => vec![],
            Progress::OfAll => vec![NO_WATCH],
            Progress::OfEach => {
                self.lock().by_id.iter().filter(|(_, watch)| watch.wants_progress).map(|(id, _)| *id).collect()
            }
        };
        for watch_id in ids {
            self.send(proto::WatchResponse { header: header(news.revision), watch_id, ..Default::default() }).await?;
        }
        Ok(())
    }

    async fn tell_events(&self, id: i64, mut events: Vec<mvccpb::Event>, now: u64) -> Result<(), Gone> {
        while !events.is_empty() {
            let rest = events.split_off(whole_revisions(&events));
            let response = proto::WatchResponse { header: header(now), watch_id: id, events, ..Default::default() };
            self.send(response).await?;
            events = rest;
        }
        Ok(())
    }

    async fn tell_compacted(&self, id: i64, compacted: Compacted, now: u64) -> Result<(), Gone> {
        self.lock().by_id.remove(&id);
        let compact_revision = api::signed(compacted.revision);
        let header = header(now);
        let response =
            proto::WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..Default::default() };
        self.send(response).await
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().expect("nobody panics with the lock")
    }
}

/// Waits until there is something to tell.
async fn news(engine: Arc<Engine>, watches: Arc<Mutex<Watches>>) -> Result<News, Stopped> {
    engine.wait(move |store| watches.lock().expect("nobody panics with the lock").look(store)).await
}

impl Watches {
    fn look(&mut self, store: &Store) -> Option<News> {
        let mut of = Vec::new();
        for (id, watch) in &mut self.by_id {
            let taken = watch.watcher.take(store, usize::MAX);
            let events = taken.map(|changes| {
                let wanted = changes.into_iter().filter(|change| watch.wants(change));
                wanted.map(|change| api::event(change, watch.previous)).collect::<Vec<_>>()
            });
            if !matches!(&events, Ok(events) if events.is_empty()) {
                of.push((*id, events));
            }
        }
        let progress = std::mem::replace(&mut self.progress, Progress::Nothing);
        (!of.is_empty() || progress != Progress::Nothing).then_some(News { revision: store.revision(), of, progress })
    }
}

/// How many of the events make one message.
fn whole_revisions(events: &[mvccpb::Event]) -> usize {
    let revision = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let Some(last) = events.get(EVENTS - 1) else { return events.len() };
    let rest = events[EVENTS..].iter().take_while(|event| revision(event) == revision(last)).count();
    EVENTS + rest
}
