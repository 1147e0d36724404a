//! Codes against each other and against `reed-solomon-erasure`.

use super::field::{self, Kernel};
use super::*;
use crate::rng::Rng;
use reed_solomon_erasure::galois_8::ReedSolomon as Other;

/// The other implementation of the same code.
#[derive(Debug)]
struct Oracle(u8, u8);

impl Oracle {
    fn code(&self) -> Other {
        Other::new(self.0.into(), self.1.into()).unwrap()
    }
}

impl Code for Oracle {
    fn data_chunks(&self) -> u8 {
        self.0
    }

    fn parity_chunks(&self) -> u8 {
        self.1
    }

    fn add(&self, data: u8, bytes: &[u8], parity: u8, into: &mut [u8]) {
        let mut all = vec![vec![0; bytes.len()]; usize::from(self.0 + self.1)];
        all[usize::from(data)] = bytes.to_vec();
        self.code().encode(&mut all).unwrap();
        field::xor(&all[usize::from(parity)], into);
    }

    fn reconstruct(&self, sources: &[Source<'_>], wanted: u8, into: &mut [u8]) {
        let mut all = vec![None; usize::from(self.0 + self.1)];
        for source in sources {
            let mut bytes = source.bytes.to_vec();
            bytes.resize(into.len(), 0);
            all[usize::from(source.chunk)] = Some(bytes);
        }
        self.code().reconstruct(&mut all).unwrap();
        into.copy_from_slice(all[usize::from(wanted)].as_ref().unwrap());
    }
}

fn portable(data: u8, parity: u8) -> Arc<dyn Code> {
    Arc::new(ReedSolomon { matrix: Matrix::new(data, parity), kernel: Kernel::Portable })
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| u8::try_from(rng.below(256)).unwrap()).collect()
}

/// A stripe: data, then the parity that a code makes of it.
fn stripe(code: &dyn Code, rng: &mut Rng, len: usize) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = (0..code.data_chunks()).map(|_| bytes(rng, len)).collect();
    for parity in code.data_chunks()..code.data_chunks() + code.parity_chunks() {
        let mut made = vec![0; len];
        (0..code.data_chunks()).for_each(|data| code.add(data, &chunks[usize::from(data)], parity, &mut made));
        chunks.push(made);
    }
    chunks
}

/// Loses every set of up to `m` chunks and reconstructs each of them.
fn all_patterns(code: &dyn Code, chunks: &[Vec<u8>]) -> u32 {
    let mut patterns = 0;
    let (k, m) = (u32::from(code.data_chunks()), u32::from(code.parity_chunks()));
    for lost in (1u32..1 << (k + m)).filter(|lost| lost.count_ones() <= m) {
        let there = (0..code.data_chunks() + code.parity_chunks()).filter(|chunk| lost >> chunk & 1 == 0);
        let sources: Vec<Source<'_>> =
            there.map(|chunk| Source { chunk, bytes: &chunks[usize::from(chunk)] }).take(k as usize).collect();
        for wanted in (0..code.data_chunks() + code.parity_chunks()).filter(|chunk| lost >> chunk & 1 == 1) {
            let mut made = vec![0xaa; chunks[0].len()];
            code.reconstruct(&sources, wanted, &mut made);
            assert_eq!(made, chunks[usize::from(wanted)], "{code:?}: {wanted} of {lost:b}");
        }
        patterns += 1;
    }
    patterns
}

#[test]
fn every_loss_of_up_to_m_chunks_is_made_good() {
    let mut rng = Rng::new(1);
    for (k, m) in [(1, 1), (1, 4), (2, 1), (2, 2), (3, 2), (4, 2), (5, 3), (8, 3), (8, 4)] {
        for (code, len) in [(code(k, m, false), 61), (portable(k, m), 7)] {
            let chunks = stripe(&*code, &mut rng, len);
            assert!(all_patterns(&*code, &chunks) > 0);
        }
    }
    for k in [1, 2, 3, 8, 16] {
        let code = code(k, 1, true);
        let chunks = stripe(&*code, &mut rng, 33);
        assert_eq!(all_patterns(&*code, &chunks), u32::from(k) + 1);
    }
}

#[test]
fn the_largest_code_survives_random_losses() {
    let mut rng = Rng::new(2);
    let code = code(16, 4, false);
    let chunks = stripe(&*code, &mut rng, 4096 + 3);
    for _ in 0..40 {
        let mut order: Vec<u8> = (0..20).collect();
        (0..20).for_each(|place| order.swap(place, rng.below(20) as usize));
        let sources: Vec<Source<'_>> =
            order[..16].iter().map(|chunk| Source { chunk: *chunk, bytes: &chunks[usize::from(*chunk)] }).collect();
        for wanted in &order[16..] {
            let mut made = vec![0; 4096 + 3];
            code.reconstruct(&sources, *wanted, &mut made);
            assert_eq!(made, chunks[usize::from(*wanted)]);
        }
    }
}

#[test]
fn implementations_agree_on_every_length() {
    let mut rng = Rng::new(3);
    for (k, m) in [(2, 1), (2, 2), (4, 2), (8, 3), (16, 4)] {
        for len in [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 511, 512, 1000, 4096, 4097] {
            let (ours, oracle) = (code(k, m, false), Oracle(k, m));
            let chunks = stripe(&*ours, &mut rng, len);
            for other in [&*portable(k, m), &oracle as &dyn Code] {
                for parity in k..k + m {
                    let mut made = vec![0; len];
                    (0..k).for_each(|data| other.add(data, &chunks[usize::from(data)], parity, &mut made));
                    assert_eq!(made, chunks[usize::from(parity)], "{k}+{m}, {len} bytes, parity {parity}");
                }
            }
            let sources: Vec<Source<'_>> =
                (m..k + m).map(|chunk| Source { chunk, bytes: &chunks[usize::from(chunk)] }).collect();
            for wanted in 0..m {
                let mut made = vec![0; len];
                oracle.reconstruct(&sources, wanted, &mut made);
                assert_eq!(made, chunks[usize::from(wanted)]);
            }
        }
    }
}

#[test]
fn parity_follows_a_change_of_some_bytes() {
    let mut rng = Rng::new(4);
    for code in [code(4, 2, false), portable(4, 2), code(3, 1, true)] {
        let mut chunks = stripe(&*code, &mut rng, 1024);
        for _ in 0..20 {
            let data = u8::try_from(rng.below(code.data_chunks().into())).unwrap();
            let start = rng.below(1000) as usize;
            let end = start + 1 + rng.below(1024 - start as u64) as usize;
            let new = bytes(&mut rng, end - start);
            let old = chunks[usize::from(data)][start..end].to_vec();
            for parity in code.data_chunks()..code.data_chunks() + code.parity_chunks() {
                let part = &mut chunks[usize::from(parity)][start..end];
                code.add(data, &old, parity, part);
                code.add(data, &new, parity, part);
            }
            chunks[usize::from(data)][start..end].copy_from_slice(&new);
        }
        all_patterns(&*code, &chunks);
    }
}

#[test]
fn what_is_missing_at_the_end_is_zero() {
    let code = code(2, 2, false);
    let mut parity = [0; 100];
    code.add(0, &[7; 40], 2, &mut parity[..40]);
    let sources = [Source { chunk: 1, bytes: &[] }, Source { chunk: 2, bytes: &parity[..40] }];
    let mut made = vec![1; 100];
    code.reconstruct(&sources, 0, &mut made);
    assert_eq!((&made[..40], &made[40..]), (&[7; 40][..], &[0; 60][..]));
}

#[test]
#[should_panic(expected = "chunk 3")]
fn the_same_source_twice_panics() {
    let sources = [Source { chunk: 3, bytes: &[1] }, Source { chunk: 3, bytes: &[1] }];
    code(2, 2, false).reconstruct(&sources, 0, &mut [0]);
}
