//! Objects at rest, in few bytes.
//!
//! Of a million objects some hundred are doing something. One that does nothing, has one version, committed, and nothing of
//! it in the log but metadata, is kept in 56 bytes; the checksums of its block and the bitmap of a block that is written in
//! parts lie in tables by block. What is rare (more than one request, a predecessor that is not the version before) is kept
//! aside. Owns the encoding; [`super::index`] owns the places.

use super::object::{Content, State, Sums, Versions};
use super::record::{Label, NO_BLOCK};
use crate::id::{CopyId, Epoch, InodeId, ObjectId, PoolId, RequestId, Requests, Role, Session, Version};
use crate::store::Bitmap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// The predecessor is the version before, of the same epoch; else there is none, unless it is kept aside.
const STEP: u8 = 1;
/// It includes one request.
const REQUEST: u8 = 2;
/// Not just its first sectors are written: the bitmap is in the table.
const PARTS: u8 = 4;
/// Its data are known to be damaged.
const DAMAGED: u8 = 8;

/// What is rare.
#[derive(Clone, Debug)]
struct Aside {
    predecessor: Version,
    requests: Requests,
}

/// An object at rest.
#[derive(Clone, Debug)]
pub struct Resting {
    stripe: u64,
    seq: u64,
    request: u64,
    aside: Option<Box<Aside>>,
    image: u32,
    epoch: u32,
    session: u32,
    /// Its block.
    pub block: u32,
    /// Segment of the oldest record that replay needs for it.
    pub base: u32,
    /// Sectors written, if they are the first ones.
    prefix: u16,
    content: Content,
    flags: u8,
}

/// Numbers for things of which there are few.
#[derive(Clone, Debug)]
struct Names<T> {
    numbers: BTreeMap<T, u32>,
    things: Vec<(T, u32)>,
    free: Vec<u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { numbers: BTreeMap::new(), things: Vec::new(), free: Vec::new() }
    }
}

impl<T: Ord + Copy> Names<T> {
    /// The number of a thing, which is used once more.
    fn take(&mut self, thing: T) -> u32 {
        if let Some(number) = self.numbers.get(&thing) {
            self.things[*number as usize].1 += 1;
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.things.push((thing, 0));
            u32::try_from(self.things.len() - 1).expect("fewer than objects")
        });
        self.things[number as usize] = (thing, 1);
        self.numbers.insert(thing, number);
        number
    }

    fn get(&self, number: u32) -> T {
        self.things[number as usize].0
    }

    /// It is used once less.
    fn give(&mut self, number: u32) {
        let (thing, users) = &mut self.things[number as usize];
        *users -= 1;
        if *users == 0 {
            self.numbers.remove(thing);
            self.free.push(number);
        }
    }
}

/// Entries of so many bytes or more are made at a time.
const CHUNK_BYTES: usize = 8 << 10;

/// Some numbers for each block, in pieces that are made when they are needed.
#[derive(Clone, Debug)]
struct ByBlock<T> {
    each: usize,
    blocks: usize,
    chunks: Vec<Option<Box<[T]>>>,
}

impl<T: Copy + Default> ByBlock<T> {
    fn new(each: usize) -> Self {
        ByBlock { each, blocks: (CHUNK_BYTES / size_of::<T>() / each.max(1)).max(1), chunks: Vec::new() }
    }

    fn place(&self, block: u32) -> (usize, std::ops::Range<usize>) {
        let (chunk, at) = (block as usize / self.blocks, block as usize % self.blocks);
        (chunk, at * self.each..(at + 1) * self.each)
    }

    fn put(&mut self, block: u32, values: &[T]) {
        let (chunk, range) = self.place(block);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        let all = self.each * self.blocks;
        let chunk = self.chunks[chunk].get_or_insert_with(|| vec![T::default(); all].into());
        let place = &mut chunk[range];
        place[..values.len()].copy_from_slice(values);
        place[values.len()..].fill(T::default());
    }

    fn get(&self, block: u32) -> &[T] {
        let (chunk, range) = self.place(block);
        self.chunks[chunk].as_ref().map(|chunk| &chunk[range]).expect("put before")
    }
}

/// What objects at rest share.
#[derive(Clone, Debug)]
pub struct Tables {
    images: Names<(PoolId, Role, InodeId)>,
    sessions: Names<Session>,
    sums: ByBlock<u32>,
    bitmaps: ByBlock<u64>,
    /// For objects that change often, so that this takes no new memory.
    #[expect(clippy::vec_box, reason = "boxes go from here to objects, and back")]
    spare: Vec<Box<Aside>>,
}

/// Memory kept aside.
const SPARE: usize = 1024;

impl Default for Tables {
    fn default() -> Self {
        Tables::new(0)
    }
}

/// Units in a word of a bitmap: eight sectors each.
const UNITS_OF_WORD: usize = 8;

impl Tables {
    /// For blocks of so many units.
    pub fn new(units: usize) -> Self {
        let (sums, bitmaps) = (ByBlock::new(units), ByBlock::new(units.div_ceil(UNITS_OF_WORD)));
        Tables { images: Names::default(), sessions: Names::default(), sums, bitmaps, spare: Vec::new() }
    }

    /// The object at rest, if it is one that can.
    pub fn pack(&mut self, copy: CopyId, base: u32, versions: &Versions) -> Option<Resting> {
        let state = versions.committed.as_ref().filter(|state| versions.prepared.is_none() && !state.on_top)?;
        let Label { version, predecessor, ref requests } = state.label;
        let epoch = u32::try_from(version.epoch.0).ok().filter(|_| state.overlays.is_empty())?;
        let prefix = state.bitmap.prefix().and_then(|prefix| u16::try_from(prefix).ok());
        let step = version.seq > 0 && predecessor == Version { seq: version.seq - 1, ..version };
        let usual = requests.len() <= 1 && (predecessor.is_none() || step);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(step, STEP)
            | flag(usual && !requests.is_empty(), REQUEST)
            | flag(prefix.is_none(), PARTS)
            | flag(state.damaged, DAMAGED);
        if state.block != NO_BLOCK {
            self.sums.put(state.block, &state.sums);
        }
        if prefix.is_none() {
            self.bitmaps.put(state.block, &state.bitmap.words);
        }
        let request = requests.first().filter(|_| usual);
        Some(Resting {
            stripe: copy.object.stripe,
            seq: version.seq,
            request: request.map_or(0, |request| request.number),
            aside: (!usual).then(|| self.aside(Aside { predecessor, requests: requests.clone() })),
            image: self.images.take((copy.object.pool, copy.role, copy.object.inode)),
            epoch,
            session: request.map_or(0, |request| self.sessions.take(request.session)),
            block: state.block,
            base,
            prefix: prefix.unwrap_or(0),
            content: state.content,
            flags,
        })
    }

    /// Brings the checksums of these blocks near the processor.
    pub fn approach(&self, blocks: &[u32]) {
        let ends =
            blocks.iter().filter_map(|block| Some(self.sums.get(*block).first()? ^ self.sums.get(*block).last()?));
        std::hint::black_box(ends.fold(0, |sum, bits| sum ^ bits));
    }

    fn aside(&mut self, aside: Aside) -> Box<Aside> {
        match self.spare.pop() {
            Some(mut spare) => {
                *spare = aside;
                spare
            }
            None => Box::new(aside),
        }
    }

    /// Which object it is.
    pub fn copy(&self, resting: &Resting) -> CopyId {
        let (pool, role, inode) = self.images.get(resting.image);
        CopyId { object: ObjectId { pool, inode, stripe: resting.stripe }, role }
    }

    fn label(&self, resting: &Resting) -> Label {
        let version = Version { epoch: Epoch(resting.epoch.into()), seq: resting.seq };
        if let Some(aside) = &resting.aside {
            return Label { version, predecessor: aside.predecessor, requests: aside.requests.clone() };
        }
        let step = resting.flags & STEP != 0;
        let predecessor = if step { Version { seq: version.seq - 1, ..version } } else { Version::NONE };
        let mut requests = Requests::new();
        if resting.flags & REQUEST != 0 {
            requests.push(RequestId { session: self.sessions.get(resting.session), number: resting.request });
        }
        Label { version, predecessor, requests }
    }

    /// Sectors written.
    fn bitmap(&self, resting: &Resting) -> Bitmap {
        if resting.flags & PARTS != 0 {
            let mut bitmap = Bitmap { words: SmallVec::from_slice(self.bitmaps.get(resting.block)) };
            bitmap.trim();
            return bitmap;
        }
        Bitmap::first(resting.prefix.into())
    }

    /// Its version, without the checksums.
    pub fn summary(&self, resting: &Resting) -> Versions {
        let committed = State {
            label: self.label(resting),
            content: resting.content,
            block: resting.block,
            on_top: false,
            damaged: resting.flags & DAMAGED != 0,
            bitmap: self.bitmap(resting),
            sums: Sums::new(),
            overlays: Vec::new(),
        };
        Versions { committed: Some(committed), prepared: None }
    }

    /// All of its version.
    pub fn versions(&self, resting: &Resting) -> Versions {
        let mut versions = self.summary(resting);
        if let Some(state) = versions.committed.as_mut().filter(|state| state.block != NO_BLOCK) {
            state.sums.extend_from_slice(self.sums.get(state.block));
        }
        versions
    }

    /// It does not rest any more.
    pub fn forget(&mut self, resting: Resting) {
        self.images.give(resting.image);
        if resting.flags & REQUEST != 0 {
            self.sessions.give(resting.session);
        }
        if let Some(aside) = resting.aside.filter(|_| self.spare.len() < SPARE) {
            self.spare.push(aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;
    use crate::rng::Rng;

    fn random(rng: &mut Rng, units: u32) -> (CopyId, Versions) {
        let small = |rng: &mut Rng, below: u64| u32::try_from(rng.below(below)).unwrap();
        let object = ObjectId { pool: PoolId(small(rng, 3)), inode: InodeId(rng.below(3)), stripe: rng.next_u64() };
        let version = Version { epoch: Epoch(rng.below(4)), seq: rng.below(3) };
        let before = Version { seq: version.seq.wrapping_sub(1), ..version };
        let predecessor = [Version::NONE, before, Version { epoch: Epoch(9), seq: 9 }][rng.below(3) as usize];
        let request = |rng: &mut Rng| RequestId {
            session: Session { client: ClientId(rng.below(3)), number: rng.below(3) },
            number: rng.next_u64(),
        };
        let requests: Requests = (0..rng.below(4)).map(|_| request(rng)).collect();
        let mut bitmap = Bitmap::default();
        for _ in 0..rng.below(3) {
            let first = if rng.chance(1, 2) { 0 } else { small(rng, u64::from(units * 8 - 1)) };
            bitmap.set(first, 1 + small(rng, u64::from(units * 8 - first)), true);
        }
        let content = if bitmap.words.is_empty() && rng.chance(1, 2) { Content::Tombstone } else { Content::Data };
        let mut state = State::empty(Label { version, predecessor, requests }, content);
        if !bitmap.words.is_empty() {
            state.block = small(rng, 1000);
            state.sums = (0..units).map(|_| small(rng, 1 << 32)).collect();
        }
        (state.bitmap, state.damaged) = (bitmap, rng.chance(1, 5));
        let copy = CopyId { object, role: Role(rng.below(2) as u8) };
        (copy, Versions { committed: Some(state), prepared: None })
    }

    #[test]
    fn what_rests_is_what_it_was() {
        for units in [1, 4, 32, 1024] {
            let (mut rng, mut tables) = (Rng::new(units.into()), Tables::new(units as usize));
            for base in 0..3000 {
                let (copy, versions) = random(&mut rng, units);
                let resting = tables.pack(copy, base, &versions).expect("it can rest");
                assert_eq!((tables.copy(&resting), resting.base), (copy, base));
                assert_eq!(tables.versions(&resting), versions);
                tables.forget(resting);
            }
            assert!(tables.images.numbers.is_empty() && tables.sessions.numbers.is_empty());
        }
    }

    #[test]
    fn what_has_more_than_one_version_or_overlays_does_not_rest() {
        let (mut rng, mut tables) = (Rng::new(1), Tables::new(4));
        let (copy, mut versions) = random(&mut rng, 4);
        versions.prepared = versions.committed.clone().map(Box::new);
        assert!(tables.pack(copy, 0, &versions).is_none());
        versions.committed = None;
        assert!(tables.pack(copy, 0, &versions).is_none());
        let (copy, mut versions) = random(&mut rng, 4);
        versions.committed.as_mut().unwrap().label.version.epoch = Epoch(1 << 32);
        assert!(tables.pack(copy, 0, &versions).is_none());
    }
}
