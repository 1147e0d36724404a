//! Clients: what they ask for, again and again, and what they were told.

use super::*;

impl World {
    pub(super) fn client_step(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.op.is_some() || client.left == 0 {
            return;
        }
        client.left -= 1;
        let stripe = if self.faults.lazy { index as u64 } else { self.rng.below(OBJECTS) };
        if stripe >= OBJECTS {
            client.left = 0;
            return;
        }
        let value = self.called as u64 + 1;
        let (slots, offset, len) = self.draw_range();
        let bytes = self.register_bytes(&slots, offset, len, value);
        let client = &mut self.clients[index];
        let mut covered = slots;
        let op = match self.rng.below(10) {
            3 if self.shape.slots.len() > 1 && self.rng.chance(1, 2) => RequestOp::BlockStatus { offset, len },
            0..4 => RequestOp::Read { offset, len },
            4 if self.shape.slots.len() > 1 && self.rng.chance(1, 2) => RequestOp::Zero { offset, len },
            4 => {
                covered = 0..self.shape.slots.len();
                RequestOp::Delete { expect: None }
            }
            5 | 6 if client.versions.contains_key(&stripe) => {
                RequestOp::Write { offset, data: bytes, expect: client.versions.get(&stripe).copied() }
            }
            _ => RequestOp::Write { offset, data: bytes, expect: None },
        };
        client.slots = covered.clone();
        let is_write = op.is_write();
        let number = if is_write {
            client.number += 1;
            client.number
        } else {
            client.reads += 1;
            1 << 63 | client.reads
        };
        let session = Session { client: ClientId(index as u64), number: 1 };
        client.op = Some((stripe, self.called));
        client.request = Some(Request {
            id: RequestId { session, number },
            seen: client.number - u64::from(is_write),
            object: object(stripe),
            generation: 0,
            epoch: Epoch(0),
            class: Default::default(),
            tenant: 0,
            op,
        });
        client.tries = 0;
        client.sent_epoch = Epoch(u64::MAX);
        let text = format!("client {index}: {:?}", client.request.as_ref().unwrap());
        self.log(|| text);
        for slot in covered {
            self.history.entry(register(stripe, slot)).or_default().push(Moment::Call(self.called));
        }
        self.called += 1;
        self.client_send(index);
    }

    /// Registers, and the range from the first to the last of them.
    pub(super) fn draw_range(&mut self) -> (std::ops::Range<usize>, u32, u32) {
        let slots = &self.shape.slots;
        if slots.len() == 1 {
            return (0..1, 0, 512);
        }
        if self.rng.chance(1, 8) {
            return (0..slots.len(), 0, self.shape.pool.object_bytes());
        }
        let first = self.rng.below(slots.len() as u64) as usize;
        let last =
            if self.rng.chance(1, 2) { first } else { self.rng.between(first as u64, slots.len() as u64 - 1) as usize };
        (first..last + 1, slots[first], slots[last] + 512 - slots[first])
    }

    /// A body with a value in each register of a range.
    pub(super) fn register_bytes(&mut self, slots: &std::ops::Range<usize>, offset: u32, len: u32, value: u64) -> Data {
        let mut buf = self.bufs.zeroed(len);
        for slot in slots.clone() {
            let at = (self.shape.slots[slot] - offset) as usize;
            buf.bytes_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        Data::new(self.bufs.freeze(buf))
    }

    /// What an answer says of each register that the operation is about.
    pub(super) fn actions(&self, index: usize, request: &Request, answer: &Answer) -> Vec<(usize, Option<Action>)> {
        let slots = self.clients[index].slots.clone();
        let at = |slot: usize, offset: u32| self.shape.slots[slot] - offset;
        let action = |slot: usize| match (&request.op, answer) {
            (RequestOp::Read { offset, .. }, Answer::Read { data, .. }) => {
                Some(Action::Read(value_at(data, at(slot, *offset))))
            }
            (RequestOp::BlockStatus { offset, .. }, Answer::BlockStatus { bitmap, .. }) => {
                // What was never written is zero; what was may be, too.
                (!bitmap.get(at(slot, *offset) / 512)).then_some(Action::Read(0))
            }
            (RequestOp::Write { offset, data, .. }, Answer::Written { .. }) => {
                Some(Action::Write(value_at(data, at(slot, *offset))))
            }
            (RequestOp::Zero { .. } | RequestOp::Delete { .. }, Answer::Written { .. }) => Some(Action::Write(0)),
            other => panic!("client {index} got {other:?}"),
        };
        slots.map(|slot| (slot, action(slot))).collect()
    }

    /// An operation of a client ended; what it did to each register, or that it did nothing.
    pub(super) fn ended(
        &mut self,
        index: usize,
        stripe: u64,
        op: usize,
        actions: Option<Vec<(usize, Option<Action>)>>,
    ) {
        let actions = actions.unwrap_or_else(|| self.clients[index].slots.clone().map(|slot| (slot, None)).collect());
        for (slot, action) in actions {
            let moments = self.history.get_mut(&register(stripe, slot)).expect("called before");
            match action {
                Some(action) => moments.push(Moment::Return(op, action)),
                None => moments.retain(|moment| *moment != Moment::Call(op)),
            }
        }
    }

    pub(super) fn client_send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(object) = client.request.as_ref().map(|request| request.object) else { return };
        // Nothing is known yet: the first news have not come.
        let layout =
            if client.view.layout.pg_count == 0 { Layout { generation: 0, pg_count: 1 } } else { client.view.layout };
        let pg = layout.pg(object);
        let map = client.view.map(pg.number);
        if client.unsynced.is_some() && client.sent_epoch != map.epoch {
            // What was acknowledged may be lost: the write goes again, with its number.
            client.request = client.unsynced.take();
            client.sent_epoch = map.epoch;
        }
        client.sent_epoch = client.sent_epoch.min(map.epoch);
        let Some(mut request) = client.request.clone() else { return };
        (request.generation, request.epoch) = (pg.number.generation(), map.epoch);
        client.tries += 1;
        let (number, tries) = (request.id.number, client.tries);
        if client.tries > 1 && self.rng.chance(1, 3) {
            client.conn += 1;
        }
        let link = LinkId(client.conn << 8 | index as u64);
        let primary = map.primary;
        if let Some(primary) = primary {
            let to = primary.0 as usize;
            let lost = self.faults.links && !self.healing && self.rng.chance(1, 10);
            if !lost {
                self.deliver(LinkId(link.0 | 1 << 30), What::Message { to, link, msg: Message::Request(request) });
            }
        }
        let timeout = self.rng.between(5_000, 150_000);
        self.after(timeout, What::ClientTimeout { client: index, number, tries });
    }

    pub(super) fn client_reply(&mut self, index: usize, reply: Reply) {
        let client = &mut self.clients[index];
        let Some(request) = &client.request else { return };
        if request.id != reply.id {
            return;
        }
        if !self.healing && self.faults.links && self.rng.chance(1, 10) {
            return;
        }
        let (stripe, op) = client.op.expect("has a request");
        let request = request.clone();
        let actions = match reply.outcome {
            Ok(Answer::Applied { version }) => {
                client.versions.insert(stripe, version);
                return self.sync(index);
            }
            Ok(Answer::Synced) => {
                let written = client.unsynced.take().expect("it was being synced");
                Some(self.actions(index, &written, &Answer::Written { version: Version::NONE }))
            }
            Ok(answer) => {
                match answer {
                    Answer::Read { version, .. } | Answer::Written { version } => {
                        client.versions.insert(stripe, version);
                    }
                    _ => {}
                }
                Some(self.actions(index, &request, &answer))
            }
            Err(Refusal::VersionMismatch(version)) => {
                client.versions.insert(stripe, version);
                None
            }
            Err(Refusal::NoSpace) => None,
            Err(Refusal::WrongEpoch(_) | Refusal::NotPrimary | Refusal::Again) => {
                let tries = client.tries;
                let number = request.id.number;
                let delay = self.rng.between(1_000, 20_000);
                self.after(delay, What::ClientTimeout { client: index, number, tries });
                return;
            }
            other => panic!("client {index} got {other:?}"),
        };
        self.log(|| format!("client {index}: op {op} on {stripe}: {actions:?}"));
        self.ended(index, stripe, op, actions);
        let client = &mut self.clients[index];
        client.request = None;
        client.op = None;
        self.next_step(index);
    }

    /// A write was acknowledged that may be lost.
    pub(super) fn sync(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.reads += 1;
        let written = client.request.take().expect("it was answered");
        let id = RequestId { number: 1 << 63 | client.reads, ..written.id };
        client.request = Some(Request { id, op: RequestOp::Sync, ..written.clone() });
        client.unsynced = Some(written);
        client.tries = 0;
        self.client_send(index);
    }

    pub(super) fn next_step(&mut self, index: usize) {
        // Spread over the time of the faults.
        let longest = if self.rng.chance(1, 2) { 2_000 } else { 90_000 };
        let delay = self.rng.between(10, longest);
        self.after(delay, What::ClientStep { client: index });
    }

    // ---- running ----
}
