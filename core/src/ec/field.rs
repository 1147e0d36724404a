//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, of single bytes and of byte strings.
//!
//! Owns the arithmetic. Byte strings are multiplied by one of two kernels with the same results: a portable one, by
//! table, and on processors that have them, vector instructions (of the crate `reed-solomon-erasure`).

/// The polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1d;

/// All products.
static PRODUCTS: [[u8; 256]; 256] = products();

/// Product, by shifting and adding; for tables.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 == 1 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { POLYNOMIAL } else { 0 };
        b >>= 1;
    }
    sum
}

const fn products() -> [[u8; 256]; 256] {
    let mut table = [[0; 256]; 256];
    let mut pair: u16 = 0;
    loop {
        let [a, b] = pair.to_le_bytes();
        table[a as usize][b as usize] = product(a, b);
        if pair == u16::MAX {
            return table;
        }
        pair += 1;
    }
}

/// The product of two bytes.
pub fn multiply(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// `base` multiplied by itself.
pub fn power(base: u8, exponent: u8) -> u8 {
    (0..exponent).fold(1, |power, _| multiply(power, base))
}

/// What gives 1 when multiplied by `a`. Panics for 0.
pub fn inverse(a: u8) -> u8 {
    (1..=u8::MAX).find(|b| multiply(a, *b) == 1).unwrap_or_else(|| panic!("{a} has no inverse"))
}

/// Adds bytes to others. Panics if the lengths differ.
pub fn xor(bytes: &[u8], into: &mut [u8]) {
    assert_eq!(bytes.len(), into.len());
    for (into, byte) in into.iter_mut().zip(bytes) {
        *into ^= byte;
    }
}

/// How byte strings are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// By table, everywhere.
    Portable,
    /// By vector instructions.
    #[cfg(target_arch = "x86_64")]
    Vector,
}

/// The fastest kernel that this processor has. The results do not depend on it.
pub fn fastest() -> Kernel {
    // The library is compiled for processors of Haswell's generation.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("movbe") {
        return Kernel::Vector;
    }
    Kernel::Portable
}

impl Kernel {
    /// Adds `factor` times `bytes` to others. Panics if the lengths differ.
    pub fn multiply_add(self, factor: u8, bytes: &[u8], into: &mut [u8]) {
        assert_eq!(bytes.len(), into.len());
        match self {
            _ if factor == 0 || bytes.is_empty() => {}
            _ if factor == 1 => xor(bytes, into),
            Kernel::Portable => {
                let products = &PRODUCTS[usize::from(factor)];
                for (into, byte) in into.iter_mut().zip(bytes) {
                    *into ^= products[usize::from(*byte)];
                }
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Vector => reed_solomon_erasure::galois_8::mul_slice_xor(factor, bytes, into),
        }
    }
}
