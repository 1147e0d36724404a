//! The same random requests to core's state machine, to the embedded store and to a real etcd: the same answers, to the
//! last revision, and the same events to watchers.

use crate::operations::{Answer, Machine, Remote, Request, Told, requests};
use crate::support::Server;
use ashlar_core::meta::{Retention, Store};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Sequences of up to 40 requests; some ten seconds with an etcd.
const CASES: u32 = 64;

/// The three stores; the last is missing where etcd is.
struct Stores {
    machine: Machine,
    remotes: Vec<Remote>,
}

impl Stores {
    async fn open(servers: &[Server]) -> Stores {
        let mut remotes = Vec::new();
        for server in servers {
            let client = etcd_client::Client::connect([server.address.to_string()], None).await.expect("it runs");
            remotes.push(Remote { client, base: 0 });
        }
        let retention = Retention { revisions: u64::MAX, bytes: u64::MAX };
        Stores { machine: Machine { store: Store::new(retention), base: 0 }, remotes }
    }

    async fn begin(&mut self) {
        self.machine.begin();
        for remote in &mut self.remotes {
            remote.begin().await.expect("it runs");
        }
    }

    /// Asks everybody everything; watchers of all see each change before the next request.
    async fn compare(&mut self, requests: &[Request], late: u64) -> Result<(), TestCaseError> {
        self.begin().await;
        let mut streams = Vec::new();
        for remote in &mut self.remotes {
            streams.push(remote.watch(1).await);
        }
        let mut compacted = 0;
        for request in requests {
            let before = self.machine.store.revision() - self.machine.base;
            let expected = self.machine.answer(request);
            let changes = self.machine.seen(before + 1).expect("just made");
            let mut shown: Option<Answer> = None;
            for (remote, stream) in self.remotes.iter_mut().zip(&mut streams) {
                let answer = remote.answer(request).await;
                let expected = match (&expected.told, &shown) {
                    (Told::Unasked, None) => Answer { told: answer.told.clone(), revision: expected.revision },
                    (Told::Unasked, Some(shown)) => shown.clone(),
                    _ => expected.clone(),
                };
                same(request, &expected, &answer)?;
                shown = Some(answer);
                if !changes.is_empty() {
                    same(request, &Ok(changes.clone()), &remote.see(stream, expected.revision).await)?;
                }
            }
            if let (Request::Compact(at), Told::Done) = (request, &expected.told) {
                compacted = *at;
            }
        }
        self.watch_late(late, compacted).await
    }

    /// A watch from the middle of the case: what is left of the past, or that it is gone.
    async fn watch_late(&mut self, late: u64, compacted: u64) -> Result<(), TestCaseError> {
        let now = self.machine.store.revision() - self.machine.base;
        let from = 1 + late % now.max(1);
        // What is left of the very revision of the compaction differs between versions of etcd.
        if from > now || from == compacted || from == compacted + 1 {
            return Ok(());
        }
        let expected = self.machine.seen(from);
        for remote in &mut self.remotes {
            let mut stream = remote.watch(from).await;
            let seen = remote.see(&mut stream, now).await;
            same(&("watch from", from), &expected, &seen)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &impl std::fmt::Debug,
    expected: &T,
    found: &T,
) -> Result<(), TestCaseError> {
    if expected == found {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what:?}:\nexpected {expected:?}\nfound    {found:?}")))
}

#[test]
fn core_embedded_and_etcd_answer_alike() {
    let servers = Server::both("equivalence");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut stores = runtime.block_on(Stores::open(&servers));
    let stores = std::cell::RefCell::new(&mut stores);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let cases = (requests(), proptest::num::u64::ANY);
    let outcome = runner.run(&cases, |(requests, late)| runtime.block_on(stores.borrow_mut().compare(&requests, late)));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
