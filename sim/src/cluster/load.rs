//! The load: random reads, writes, discards and zeroes, half of them on the first image, half of those on a few hot objects.

use super::{CALL_LOAD, Cluster, IMAGE, LoadConfig, Pending};
use crate::check::history::{BLOCK, Block, Finding, What, fill};
use crate::plan::Operation;
use ashlar_core::buf::BufPool;
use ashlar_core::client::ImageOp;
use ashlar_core::msg::Message;
use ashlar_core::rng::Rng;
use ashlar_core::time::Duration;
use ashlar_core::wire;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A read.
    Read,
    /// A write of its tags; of cells, conditional on the sectors around them.
    Write,
    /// A discard; of whole objects, their deletion.
    Discard,
    /// Zeroes; of whole objects their deletion, unless they are to stay allocated.
    Zeroes {
        /// Whole objects stay allocated.
        no_hole: bool,
    },
}

impl Ask {
    fn what(self) -> What {
        match self {
            Ask::Read => What::Read(Vec::new()),
            Ask::Write => What::Write,
            Ask::Discard | Ask::Zeroes { .. } => What::Discard,
        }
    }
}

fn draw_ask(load: &LoadConfig, rng: &mut Rng) -> Ask {
    let percent = rng.below(100);
    let discards = load.read_percent + load.discard_percent;
    match percent {
        p if p < load.read_percent => Ask::Read,
        p if p < discards => Ask::Discard,
        p if p < discards + load.zero_percent => Ask::Zeroes { no_hole: rng.chance(1, 3) },
        _ => Ask::Write,
    }
}

/// Encodes and decodes a message, as a connection would.
pub(super) fn through_the_wire(msg: Message, bufs: &mut BufPool) -> Message {
    let mut bytes = Vec::new();
    let body = wire::encode(&msg, &mut bytes);
    let (frame, header) = bytes.split_first_chunk().expect("a frame header comes first");
    let frame = wire::FrameHeader::parse(frame).unwrap_or_else(|error| panic!("{error:?} in the frame of {msg:?}"));
    let body = body.map(|data| bufs.copy_of(data.buf.bytes()));
    let back = wire::decode(&frame, header, body).unwrap_or_else(|error| panic!("{error:?} in {msg:?}"));
    assert_eq!(back, msg, "a message changes on its way");
    back
}

impl Cluster {
    /// Starts the load of the configuration.
    pub fn start_load(&mut self) {
        let clients = u32::try_from(self.clients.len()).expect("few");
        for index in 0..self.clients.len() {
            self.clients[index].left = self.config.load.operations / clients;
            self.fill_depth(index);
        }
        if self.decisions.replays_load() {
            self.schedule_planned();
        }
        self.start_operators();
    }

    /// In place of drawn times, those of the plan.
    fn schedule_planned(&mut self) {
        for index in 0..self.clients.len() {
            let times = self.decisions.operation_times(index);
            self.clients[index].left = u32::try_from(times.len()).expect("bounded runs");
            times.into_iter().for_each(|at| self.world.call_at(at, CALL_LOAD + index as u64));
        }
    }

    /// No client starts anything new.
    pub fn stop_load(&mut self) {
        for client in &mut self.clients {
            client.left = 0;
        }
    }

    /// Whether the load has been carried out.
    pub fn load_done(&self) -> bool {
        let done = self.clients.iter().all(|client| client.left == 0 && client.open.is_empty());
        done && (self.decisions.faults_are_over() || !self.chaos.is_on())
    }

    /// Opens the images that the client has not opened.
    pub(super) fn open_images(&mut self, index: usize) {
        for image in self.live_images().collect::<Vec<_>>() {
            let client = &mut self.clients[index];
            let asked = client.images.contains_key(&image) || client.opening.values().any(|other| *other == image);
            if asked || !self.world.is_running(client.node) {
                continue;
            }
            let name = self.images[image as usize].name.clone();
            let client = &mut self.clients[index];
            let op = self.world.with(client.node, |process, env| {
                process.client_mut().expect("a client's place").open_image(env, &name)
            });
            client.opening.insert(op, image);
        }
    }

    /// Starts operations as the client's depth allows.
    pub(super) fn pump(&mut self, index: usize) -> Result<(), Finding> {
        self.open_images(index);
        let client = &mut self.clients[index];
        if !client.images.contains_key(&IMAGE) || client.left == 0 {
            return Ok(());
        }
        let (now, number) = (self.world.now(), u32::try_from(index).expect("few"));
        if self.decisions.replays_load() {
            while let Some(planned) = self.decisions.next_operation(index, now) {
                self.clients[index].rng = planned.draws;
                self.begin_operation(index)?;
            }
        } else if client.open.len() < self.config.load.depth as usize {
            self.decisions.record_operation(Operation { at: now.0, client: number, draws: client.rng.clone() });
            self.begin_operation(index)?;
        }
        Ok(())
    }

    /// Starts the operation that the client's generator gives.
    fn begin_operation(&mut self, index: usize) -> Result<(), Finding> {
        self.clients[index].left -= 1;
        if self.config.is_lazy() && self.clients[index].rng.chance(1, 12) {
            return self.start_flush(index).map(drop);
        }
        let (image, first, units, ask) = self.draw_operation(index);
        self.submit(index, image, first, units, ask);
        Ok(())
    }

    /// After a pause the client starts its next operation.
    pub(super) fn think(&mut self, index: usize) {
        if self.decisions.replays_load() {
            return self.world.call_at(self.world.now(), CALL_LOAD + index as u64);
        }
        let think = Duration(self.clients[index].rng.below(self.config.load.think.0.max(1)));
        self.world.call_at(self.world.now() + think, CALL_LOAD + index as u64);
    }

    /// As many operations as the client may have in flight begin soon.
    pub(super) fn fill_depth(&mut self, index: usize) {
        for _ in self.clients[index].open.len()..self.config.load.depth as usize {
            self.think(index);
        }
    }

    /// Half of the operations are about the first image.
    fn draw_image(&mut self, index: usize) -> u32 {
        let client = &mut self.clients[index];
        let others = client.images.len() as u64 - 1;
        if others == 0 || client.rng.chance(1, 2) {
            return IMAGE;
        }
        let place = usize::try_from(client.rng.between(1, others)).expect("few images");
        *client.images.keys().nth(place).expect("below the number of images")
    }

    fn draw_operation(&mut self, index: usize) -> (u32, u32, u32, Ask) {
        let number = self.draw_image(index);
        let image = &self.images[number as usize];
        let (per_object, used, objects) = (image.layout.per_object, image.used(), image.objects);
        let (config, rng) = (&self.config, &mut self.clients[index].rng);
        let load = &config.load;
        let hot = if rng.chance(1, 2) { load.hot_objects.min(objects) } else { objects };
        let object = u32::try_from(rng.below(u64::from(hot))).expect("few");
        // Of a lazy pool, each client has its own.
        let mine = object - object % load.clients + u32::try_from(index).expect("few");
        let object = if !config.is_lazy() {
            object
        } else if mine < objects {
            mine
        } else {
            mine - load.clients
        };
        let ask = draw_ask(load, rng);
        if matches!(ask, Ask::Discard | Ask::Zeroes { .. }) && rng.chance(load.whole_percent, 100) {
            return (number, object * per_object, per_object, ask);
        }
        let inside = u32::try_from(rng.below(u64::from(used))).expect("few");
        let first = object * per_object + inside;
        let alone = config.is_lazy() || used < per_object;
        let end = if alone { object * per_object + used } else { objects * per_object };
        let longest = load.max_blocks.min(end - first);
        // Small operations are the usual ones.
        let longest = if rng.chance(2, 3) { longest.min(4) } else { longest };
        let blocks = u32::try_from(rng.between(1, u64::from(longest))).expect("few");
        (number, first, blocks, ask)
    }

    /// Starts an operation; returns its number in the history.
    ///
    /// # Panics
    /// If the client has not opened the image.
    pub(super) fn submit(&mut self, index: usize, image: u32, first: u32, blocks: u32, ask: Ask) -> u32 {
        let (place, unit) = (Block { image, index: first }, self.images[image as usize].layout.unit);
        let number = u32::try_from(index).expect("few");
        let op = self.history.call(number, place, blocks, ask.what());
        self.times.push((self.world.now(), None));
        let (offset, len) = (u64::from(first) * u64::from(unit), blocks * unit);
        let request = match ask {
            Ask::Read => ImageOp::Read { offset, len },
            // A discard of parts of sectors would leave those as they are.
            Ask::Discard if unit == BLOCK => ImageOp::Discard { offset, len: u64::from(len) },
            Ask::Discard => ImageOp::WriteZeroes { offset, len: u64::from(len), no_hole: false },
            Ask::Zeroes { no_hole } => ImageOp::WriteZeroes { offset, len: u64::from(len), no_hole },
            Ask::Write => {
                let mut data = self.world.bufs().alloc(len);
                fill(op, place, unit, data.bytes_mut());
                ImageOp::Write { offset, data: self.world.bufs().freeze(data) }
            }
        };
        self.world.note(|| {
            format!("client {index} starts operation {op}: {ask:?} of {blocks} blocks from {first} of image {image}")
        });
        self.hand_over(index, image, op, ask == Ask::Read, request);
        op
    }

    /// Starts an operation of a script, unless a plan leaves it out: then it has failed before anybody heard of it.
    pub(super) fn submit_scripted(&mut self, index: usize, image: u32, first: u32, blocks: u32, ask: Ask) -> u32 {
        if self.decisions.allows_scripted() {
            return self.submit(index, image, first, blocks, ask);
        }
        let place = Block { image, index: first };
        let op = self.history.call(u32::try_from(index).expect("few"), place, blocks, ask.what());
        self.times.push((self.world.now(), None));
        self.history.failed(op);
        self.left_out.insert(op);
        op
    }

    /// Starts a flush: an operation on no blocks.
    pub fn start_flush(&mut self, index: usize) -> Result<u32, Finding> {
        let place = Block { image: IMAGE, index: 0 };
        let op = self.history.call(u32::try_from(index).expect("few"), place, 0, What::Write);
        self.times.push((self.world.now(), None));
        self.world.note(|| format!("client {index} starts operation {op}: a flush"));
        self.hand_over(index, IMAGE, op, false, ImageOp::Flush);
        // Where nothing is unsynced, it is done already.
        self.drain(index).map(|()| op)
    }

    fn hand_over(&mut self, index: usize, image: u32, op: u32, read: bool, request: ImageOp) {
        let client = &self.clients[index];
        let image = *client.images.get(&image).expect("the image is open");
        let id = self.world.with(client.node, |process, env| {
            process.client_mut().expect("a client's place").submit(env, image, request)
        });
        let id = id.expect("far below the client's limit");
        self.clients[index].open.insert(id, Pending { op, read });
    }
}
