//! Checksums of units, and how they add up to the checksum of a whole body without a second pass.
//!
//! CRC-32 is linear: `crc(a ++ b) = shift(crc(a), len(b)) ^ crc(b)`, where `shift` appends zero bytes. For the two
//! lengths that matter here (a sector, a unit) `shift` is four table look-ups.

use crate::buf::UNIT;
use crate::limits::SECTOR_BYTES;

/// CRC-32 (IEEE), reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;

type Shift = [[u32; 256]; 4];

/// Appends `bytes` zero bytes to the CRC `crc`, bit by bit.
const fn shift_slowly(mut crc: u32, bytes: u32) -> u32 {
    let mut bit = 0;
    while bit < bytes * 8 {
        crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        bit += 1;
    }
    crc
}

/// Applies a linear map, given by the images of the 32 bits.
const fn apply_bits(images: &[u32; 32], value: u32) -> u32 {
    let mut result = 0;
    let mut bit = 0;
    while bit < 32 {
        if value >> bit & 1 == 1 {
            result ^= images[bit];
        }
        bit += 1;
    }
    result
}

/// Images of the 32 bits under "append `64 << doublings` zero bytes".
const fn bits_of_shift(doublings: u32) -> [u32; 32] {
    let mut images = [0; 32];
    let mut bit = 0;
    while bit < 32 {
        images[bit] = shift_slowly(1 << bit, 64);
        bit += 1;
    }
    let mut step = 0;
    while step < doublings {
        let mut next = [0; 32];
        let mut bit = 0;
        while bit < 32 {
            next[bit] = apply_bits(&images, images[bit]);
            bit += 1;
        }
        images = next;
        step += 1;
    }
    images
}

const fn table_of_shift(doublings: u32) -> Shift {
    let images = bits_of_shift(doublings);
    let mut table = [[0; 256]; 4];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut place = 0;
        while place < 4 {
            table[place][byte as usize] = apply_bits(&images, byte << (8 * place));
            place += 1;
        }
        byte += 1;
    }
    table
}

static SHIFT_SECTOR: Shift = table_of_shift(3);
static SHIFT_UNIT: Shift = table_of_shift(6);

fn shift(table: &Shift, crc: u32) -> u32 {
    let [a, b, c, d] = crc.to_le_bytes();
    table[0][usize::from(a)] ^ table[1][usize::from(b)] ^ table[2][usize::from(c)] ^ table[3][usize::from(d)]
}

/// CRC of a body, put together from the CRCs of its parts in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Combined(u32);

impl Combined {
    /// Appends a part of `len` bytes (at most a unit, whole sectors) whose CRC is `crc`.
    pub fn append(&mut self, crc: u32, len: u32) {
        if len == UNIT {
            self.0 = shift(&SHIFT_UNIT, self.0);
        } else {
            for _ in 0..len / SECTOR_BYTES {
                self.0 = shift(&SHIFT_SECTOR, self.0);
            }
        }
        self.0 ^= crc;
    }

    /// The CRC of all that was appended.
    pub fn crc(self) -> u32 {
        self.0
    }
}

/// CRC of a unit of zeroes.
pub fn of_zero_unit() -> u32 {
    // The value is tested below.
    0xc71c_0011
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let body: Vec<u8> = (0..40_960u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for lens in [vec![4096; 10], vec![512, 4096, 4096, 1024], vec![3584], vec![], vec![2048, 4096, 512]] {
            let mut combined = Combined::default();
            let mut at = 0;
            for len in lens {
                combined.append(crc32fast::hash(&body[at..at + len]), u32::try_from(len).unwrap());
                at += len;
            }
            assert_eq!(combined.crc(), crc32fast::hash(&body[..at]));
        }
    }

    #[test]
    fn zeroes_are_known() {
        assert_eq!(of_zero_unit(), crc32fast::hash(&[0; 4096]));
    }
}
