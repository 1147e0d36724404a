//! Drawn sequences for the models of faults, against specifications that are simpler than they are: what a disk may hold
//! after reads, flushes, deaths of its process and power losses; that a mix of faults is the same after a file.

use ashlar_core::buf::{BufPool, UNIT};
use ashlar_core::io::{Device, DiskDone, DiskOp};
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_faultinject::disk::{DiskModel, Latency, Outcome, SECTOR, SimDisk, Ticket};
use ashlar_faultinject::mix::{FaultKind, FaultMix};
use ashlar_faultinject::plan::{Fault, FaultPlan};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use std::collections::{BTreeMap, BTreeSet};

/// Of the disk: few, so that requests meet.
const SECTORS: usize = 32;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        sectors: usize,
    },
    Flush,
    Read {
        at: usize,
        sectors: usize,
    },
    /// One of the requests in flight completes.
    Complete(usize),
    ProcessDies,
    PowerLoss(Outcome),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SECTORS, 1..20usize).prop_map(|(at, sectors)| (at, sectors.min(SECTORS - at)));
    let outcome =
        prop_oneof![Just(Outcome::KeepAll), Just(Outcome::LoseAll), Just(Outcome::Pages), Just(Outcome::Sectors),];
    prop_oneof![
        8 => range().prop_map(|(at, sectors)| Step::Write { at, sectors }),
        3 => Just(Step::Flush),
        3 => range().prop_map(|(at, sectors)| Step::Read { at, sectors }),
        12 => (0..8usize).prop_map(Step::Complete),
        1 => Just(Step::ProcessDies),
        1 => outcome.prop_map(Step::PowerLoss),
    ]
}

/// A sector, as the specification sees it: the tag of the write that is safe there, and those that completed since.
#[derive(Clone, Default)]
struct Sector {
    safe: u64,
    since: Vec<(u64, u64)>,
}

impl Sector {
    fn newest(&self) -> u64 {
        self.since.last().map_or(self.safe, |(_, tag)| *tag)
    }
}

#[derive(Clone)]
enum Flying {
    Write {
        at: usize,
        sectors: usize,
        tag: u64,
    },
    Flush {
        watermark: u64,
    },
    /// With what each sector may hold for it: what it held when the read began, and what came since.
    Read {
        at: usize,
        possible: Vec<BTreeSet<u64>>,
    },
}

struct Bench {
    disk: SimDisk,
    protected: bool,
    bufs: BufPool,
    rng: Rng,
    sectors: Vec<Sector>,
    flying: BTreeMap<Ticket, Flying>,
    tags: u64,
    completed: u64,
}

impl Bench {
    fn new(seed: u64, protected: bool, atomic_bytes: u32) -> Bench {
        let mut bufs = BufPool::new();
        let quick = Latency { base: Duration::micros(1), tail: Duration::micros(1), tail_ppm: 0 };
        let model = DiskModel {
            size_bytes: (SECTORS * SECTOR) as u64,
            block_bytes: 512,
            power_loss_protection: protected,
            atomic_bytes,
            read: quick,
            write: quick,
            flush: quick,
        };
        let disk = SimDisk::new(model, &mut bufs);
        let (sectors, flying) = (vec![Sector::default(); SECTORS], BTreeMap::new());
        Bench { disk, protected, bufs, rng: Rng::new(seed), sectors, flying, tags: 0, completed: 0 }
    }

    fn submit(&mut self, op: DiskOp, what: Flying) {
        let (ticket, _) = self.disk.submit(&mut self.rng, op);
        self.flying.insert(ticket, what);
    }

    /// Whether a request would meet one in flight that it must not meet.
    fn meets(&self, at: usize, sectors: usize) -> bool {
        self.flying.values().any(|what| match what {
            Flying::Write { at: other, sectors: len, .. } => at < other + len && *other < at + sectors,
            Flying::Flush { .. } | Flying::Read { .. } => false,
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let device = Device::Data;
        match *step {
            Step::Write { at, sectors } if !self.meets(at, sectors) => {
                self.tags += 1;
                let mut buf = self.bufs.alloc((sectors * SECTOR) as u32);
                buf.bytes_mut().chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.tags.to_le_bytes()));
                let data = self.bufs.freeze(buf);
                let op = DiskOp::Write { device, offset: (at * SECTOR) as u64, data };
                self.submit(op, Flying::Write { at, sectors, tag: self.tags });
            }
            Step::Write { .. } => {}
            Step::Flush => self.submit(DiskOp::Flush { device }, Flying::Flush { watermark: self.completed }),
            Step::Read { at, sectors } => {
                let op = DiskOp::Read { device, offset: (at * SECTOR) as u64, len: (sectors * SECTOR) as u32 };
                let possible = self.sectors[at..at + sectors].iter().map(|sector| BTreeSet::from([sector.newest()]));
                let possible = possible.collect();
                self.submit(op, Flying::Read { at, possible });
            }
            Step::Complete(which) => {
                let ticket = self.flying.keys().nth(which % self.flying.len().max(1)).copied();
                ticket.map_or(Ok(()), |ticket| self.complete(ticket))?;
            }
            Step::ProcessDies => {
                let possible = self.possible(|sector| BTreeSet::from([sector.newest()]));
                self.disk.process_died(&mut self.rng, &mut self.bufs);
                self.look(&possible, false)?;
            }
            Step::PowerLoss(outcome) => {
                let safe = |sector: &Sector| BTreeSet::from([sector.safe]);
                let any = |sector: &Sector| sector.since.iter().map(|(_, tag)| *tag).chain([sector.safe]).collect();
                let possible = match outcome {
                    // Nothing in flight, nothing since.
                    Outcome::LoseAll => self.sectors.iter().map(safe).collect(),
                    // Garbage is not among the steps: no set of states would hold it.
                    Outcome::KeepAll | Outcome::Pages | Outcome::Sectors | Outcome::Garbage => self.possible(any),
                };
                self.disk.power_loss(outcome, &mut self.rng, &mut self.bufs);
                self.look(&possible, true)?;
            }
        }
        Ok(())
    }

    fn complete(&mut self, ticket: Ticket) -> Result<(), TestCaseError> {
        let what = self.flying.remove(&ticket).expect("chosen among them");
        let done = self.disk.complete(ticket, &mut self.rng, &mut self.bufs).expect("in flight");
        match (what, done) {
            (Flying::Write { at, sectors, tag }, DiskDone::Done(Ok(()))) => {
                self.completed += 1;
                self.reads_may_see(at, sectors, tag);
                for sector in &mut self.sectors[at..at + sectors] {
                    if self.protected {
                        sector.safe = tag;
                    } else {
                        sector.since.push((self.completed, tag));
                    }
                }
            }
            (Flying::Flush { watermark }, DiskDone::Done(Ok(()))) => {
                for sector in &mut self.sectors {
                    let covered = sector.since.iter().take_while(|(number, _)| *number <= watermark).count();
                    if let Some((_, tag)) = sector.since.drain(..covered).next_back() {
                        sector.safe = tag;
                    }
                }
            }
            (Flying::Read { at, possible }, DiskDone::Read(Ok(read))) => {
                let coming = self.possible(|_| BTreeSet::new());
                prop_assert_eq!(read.bytes().len(), possible.len() * SECTOR);
                for ((sector, possible), bytes) in (at..).zip(possible).zip(read.bytes().chunks_exact(SECTOR)) {
                    let tag = tag_of(bytes)?;
                    let allowed = possible.contains(&tag) || coming[sector].contains(&tag);
                    prop_assert!(allowed, "read {} at {}: {:?}, {:?}", tag, sector, possible, coming[sector]);
                }
            }
            (_, other) => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    /// A write completes: reads in flight that meet it may see it, or what was there.
    fn reads_may_see(&mut self, at: usize, sectors: usize, tag: u64) {
        for what in self.flying.values_mut() {
            let Flying::Read { at: from, possible } = what else { continue };
            let met = (*from..).zip(possible).filter(|(sector, _)| (at..at + sectors).contains(sector));
            met.for_each(|(_, possible)| {
                possible.insert(tag);
            });
        }
    }

    /// What each sector may hold: what this says of it, and what is on its way there.
    fn possible(&self, of: impl Fn(&Sector) -> BTreeSet<u64>) -> Vec<BTreeSet<u64>> {
        let mut possible: Vec<BTreeSet<u64>> = self.sectors.iter().map(of).collect();
        for what in self.flying.values() {
            if let Flying::Write { at, sectors, tag } = what {
                possible[*at..at + sectors].iter_mut().for_each(|sector| {
                    sector.insert(*tag);
                });
            }
        }
        possible
    }

    /// Nothing is in flight any more: each sector holds one of these, and that is what it holds from now on.
    fn look(&mut self, possible: &[BTreeSet<u64>], safe: bool) -> Result<(), TestCaseError> {
        self.flying.clear();
        for (place, possible) in possible.iter().enumerate() {
            let (page, within) = (place * SECTOR / UNIT as usize, place * SECTOR % UNIT as usize);
            let bytes = self.disk.page(page as u64).map(|page| page[within..within + SECTOR].to_vec());
            let tag = bytes.map_or(Ok(0), |bytes| tag_of(&bytes))?;
            prop_assert!(possible.contains(&tag), "sector {} holds {}: {:?}", place, tag, possible);
            let sector = &mut self.sectors[place];
            if safe || self.protected {
                *sector = Sector { safe: tag, since: Vec::new() };
            } else if tag != sector.newest() {
                sector.since.push((self.completed + 1, tag));
            }
        }
        self.completed += 1;
        Ok(())
    }
}

/// Who wrote a sector, which is whole.
fn tag_of(bytes: &[u8]) -> Result<u64, TestCaseError> {
    let word = *bytes.first_chunk().expect("a sector");
    prop_assert!(bytes.chunks_exact(8).all(|other| other == word), "a sector is torn");
    Ok(u64::from_le_bytes(word))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_holds_what_was_safe_or_came_since(
        seed in any::<u64>(),
        protected in any::<bool>(),
        whole_pages in any::<bool>(),
        steps in vec(step(), 1..80),
    ) {
        let mut bench = Bench::new(seed, protected, if whole_pages { 4096 } else { 512 });
        for step in &steps {
            bench.step(step)?;
        }
    }

    #[test]
    fn a_mix_is_the_same_after_a_file(seed in any::<u64>(), kinds in subsequence(FaultKind::ALL, 0..FaultKind::ALL.len())) {
        let mix = FaultMix::draw(&mut Rng::new(seed), kinds.iter().copied());
        let text = serde_json::to_string(&mix).expect("plain data");
        let back: FaultMix = serde_json::from_str(&text).expect("its own form");
        prop_assert_eq!(&back, &mix);
        let (mut a, mut b) = (Rng::new(seed ^ 1), Rng::new(seed ^ 1));
        for _ in 0..20 {
            let next = mix.next(&mut a);
            prop_assert_eq!(&next, &back.next(&mut b));
            prop_assert!(next.is_none_or(|(_, kind)| kinds.contains(&kind) && mix.has(kind)));
        }
    }

    #[test]
    fn a_plan_goes_on_after_a_file_as_it_would_have(seeds in vec((any::<u64>(), any::<u64>(), 0..FaultKind::ALL.len()), 0..20)) {
        let fault = |(at, seed, kind): &(u64, u64, usize)| {
            let mut draws = Rng::new(*seed);
            for _ in 0..seed % 7 {
                draws.next_u64();
            }
            Fault { at: *at, kind: FaultKind::ALL[*kind], draws }
        };
        let plan = FaultPlan { faults: seeds.iter().map(fault).collect() };
        let text = serde_json::to_string(&plan).expect("plain data");
        let back: FaultPlan = serde_json::from_str(&text).expect("its own form");
        prop_assert_eq!(back.faults.len(), plan.faults.len());
        for (mut before, mut after) in plan.faults.into_iter().zip(back.faults) {
            prop_assert_eq!((before.at, before.kind), (after.at, after.kind));
            prop_assert!((0..5).all(|_| before.draws.next_u64() == after.draws.next_u64()));
        }
    }
}
