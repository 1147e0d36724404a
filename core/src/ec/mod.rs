//! Erasure codes: parity of chunks, and any chunk from enough others.
//!
//! Owns arithmetic on bytes. Does not own what a chunk is, where it lies, or who reads it (`pg/` does).
//!
//! Every code here is linear over GF(2^8) and systematic: data chunks are stored as they are, and every byte of a parity
//! chunk is a sum of products of the data bytes *at the same offset*. From that follows all that the layer above uses:
//! parity of zeroes is zero, so what was never written needs no parity; a change of some bytes of one chunk changes the
//! same bytes of each parity chunk, by what differs; chunks may be cut and recombined at any byte.
//!
//! Chunks are numbered as roles are: data `0..k`, then parity `k..k + m`.

mod field;
mod matrix;
#[cfg(test)]
mod tests;

use crate::planted::{Bug, planted};
use matrix::{Coefficients, Matrix};
use std::fmt;
use std::sync::Arc;

/// Most data chunks of a stripe.
pub const DATA_MAX: u8 = 16;
/// Most parity chunks of a stripe.
pub const PARITY_MAX: u8 = 4;

/// Bytes of one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Which chunk.
    pub chunk: u8,
    /// Its bytes; those that are missing at the end are zero.
    pub bytes: &'a [u8],
}

/// A code.
pub trait Code: fmt::Debug + Send + Sync {
    /// Number of data chunks, `k`.
    fn data_chunks(&self) -> u8;

    /// Number of parity chunks, `m`.
    fn parity_chunks(&self) -> u8;

    /// Adds to a parity chunk what `bytes` of a data chunk contribute to it. Beginning with zeroes, the contributions of
    /// all data chunks make the parity; beginning with the old parity, those of old and new bytes make the new one.
    /// Panics if the lengths differ or the chunks do not exist.
    fn add(&self, data: u8, bytes: &[u8], parity: u8, into: &mut [u8]);

    /// Computes the bytes of chunk `wanted` from those of `k` others. Panics if these are not `k` different chunks.
    fn reconstruct(&self, sources: &[Source<'_>], wanted: u8, into: &mut [u8]);
}

/// The code with `k` data and `m` parity chunks; `xor` can do with one parity chunk only, and is the fastest then.
/// Panics outside of the limits.
pub fn code(data: u8, parity: u8, xor: bool) -> Arc<dyn Code> {
    assert!((1..=DATA_MAX).contains(&data) && (1..=PARITY_MAX).contains(&parity), "no code {data}+{parity}");
    if xor {
        assert_eq!(parity, 1, "one parity chunk is all that XOR gives");
        Arc::new(Xor { data })
    } else {
        Arc::new(ReedSolomon { matrix: Matrix::new(data, parity), kernel: field::fastest() })
    }
}

/// Eight bytes that stand for a chunk, and fit its code as the chunk does: they are a sum of the chunk's rows of eight bytes
/// with a factor for each, so the parity of data chunks' fingerprints is the fingerprint of their parity. Chunks that
/// differ in whole sectors have the same one with a chance of 2^-64; in one byte, never.
pub fn fingerprint(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    let mut state = 0u64;
    for row in bytes.chunks(8) {
        // The step of SplitMix64's counter; its upper bits are as good as random for this.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let factor = u8::try_from((mixed >> 56) % 255).expect("below 255") + 1;
        for (sum, byte) in sum.iter_mut().zip(row).filter(|(_, byte)| **byte != 0) {
            *sum ^= field::multiply(factor, *byte);
        }
    }
    sum
}

/// One parity chunk, the sum of all data chunks.
#[derive(Clone, Debug)]
struct Xor {
    data: u8,
}

impl Code for Xor {
    fn data_chunks(&self) -> u8 {
        self.data
    }

    fn parity_chunks(&self) -> u8 {
        1
    }

    fn add(&self, data: u8, bytes: &[u8], parity: u8, into: &mut [u8]) {
        assert!(data < self.data && parity == self.data, "{self:?}: {data} into {parity}");
        field::xor(bytes, into);
    }

    fn reconstruct(&self, sources: &[Source<'_>], wanted: u8, into: &mut [u8]) {
        matrix::check_sources(sources, wanted, self.data, 1);
        into.fill(0);
        for source in sources {
            field::xor(source.bytes, &mut into[..source.bytes.len()]);
        }
    }
}

/// Reed-Solomon: any `k` chunks give all others.
#[derive(Clone, Debug)]
struct ReedSolomon {
    matrix: Matrix,
    kernel: field::Kernel,
}

impl Code for ReedSolomon {
    fn data_chunks(&self) -> u8 {
        self.matrix.data_chunks()
    }

    fn parity_chunks(&self) -> u8 {
        self.matrix.parity_chunks()
    }

    fn add(&self, data: u8, bytes: &[u8], parity: u8, into: &mut [u8]) {
        let parity = if planted(Bug::FirstParityOnly) { self.data_chunks() } else { parity };
        self.kernel.multiply_add(self.matrix.factor(data, parity), bytes, into);
    }

    fn reconstruct(&self, sources: &[Source<'_>], wanted: u8, into: &mut [u8]) {
        matrix::check_sources(sources, wanted, self.data_chunks(), self.parity_chunks());
        let chunks: Coefficients = sources.iter().map(|source| source.chunk).collect();
        let first_lost = (0..wanted).find(|chunk| planted(Bug::DecodeFirstLost) && !chunks.contains(chunk));
        let wanted = first_lost.unwrap_or(wanted);
        let factors = self.matrix.factors_from(&chunks, wanted);
        into.fill(0);
        for (source, factor) in sources.iter().zip(factors) {
            self.kernel.multiply_add(factor, source.bytes, &mut into[..source.bytes.len()]);
        }
    }
}
