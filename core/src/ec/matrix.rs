//! The matrix of a Reed-Solomon code, and what follows from it for a given set of chunks.
//!
//! It is the one of `reed-solomon-erasure` (and of the Backblaze library before it), so that other implementations can
//! read the same stripes: a Vandermonde matrix, multiplied by the inverse of its upper part. Fixed for ever: stored
//! parity depends on it.

use super::Source;
use super::field::{inverse, multiply, power};
use smallvec::SmallVec;

/// One factor for each of `k` chunks.
pub type Coefficients = SmallVec<[u8; 16]>;

/// Square matrices of side `k`, row by row.
type Square = SmallVec<[Coefficients; 16]>;

/// One row for each chunk: its bytes are the sum of the row's factors times the data bytes.
#[derive(Clone, Debug)]
pub struct Matrix {
    data: u8,
    rows: Vec<Coefficients>,
}

impl Matrix {
    /// The matrix of the code with so many data and parity chunks.
    pub fn new(data: u8, parity: u8) -> Self {
        let vandermonde = |row: u8| (0..data).map(|column| power(row, column)).collect::<Coefficients>();
        let top = inverted((0..data).map(vandermonde).collect());
        let rows = (0..data + parity).map(|row| times(&vandermonde(row), &top)).collect();
        Matrix { data, rows }
    }

    /// `k`.
    pub fn data_chunks(&self) -> u8 {
        self.data
    }

    /// `m`.
    pub fn parity_chunks(&self) -> u8 {
        u8::try_from(self.rows.len()).expect("at most 20 rows") - self.data
    }

    /// What a data chunk's bytes are multiplied with, for a parity chunk.
    pub fn factor(&self, data: u8, parity: u8) -> u8 {
        assert!(parity >= self.data, "chunk {parity} is not parity");
        self.rows[usize::from(parity)][usize::from(data)]
    }

    /// What the bytes of `k` different chunks are multiplied with, to give those of `wanted`.
    pub fn factors_from(&self, chunks: &[u8], wanted: u8) -> Coefficients {
        let rows = chunks.iter().map(|chunk| self.rows[usize::from(*chunk)].clone()).collect();
        times(&self.rows[usize::from(wanted)], &inverted(rows))
    }
}

/// Panics unless these are `k` different chunks, all of the code.
pub fn check_sources(sources: &[Source<'_>], wanted: u8, data: u8, parity: u8) {
    assert_eq!(sources.len(), usize::from(data), "{data}+{parity}: {} sources", sources.len());
    let mut seen = 0u64;
    for chunk in sources.iter().map(|source| source.chunk).chain([wanted]) {
        assert!(chunk < data + parity && seen >> chunk & 1 == 0, "{data}+{parity}: chunk {chunk}");
        seen |= 1 << chunk;
    }
}

/// A row times a matrix.
fn times(row: &[u8], matrix: &Square) -> Coefficients {
    let column =
        |column: usize| row.iter().zip(matrix).fold(0, |sum, (factor, other)| sum ^ multiply(*factor, other[column]));
    (0..row.len()).map(column).collect()
}

/// Gauss and Jordan. Panics if there is no inverse; rows of a code's matrix always have one.
fn inverted(mut matrix: Square) -> Square {
    let side = matrix.len();
    let unit = |row: usize| (0..side).map(|column| u8::from(row == column)).collect::<Coefficients>();
    let mut inverse_of: Square = (0..side).map(unit).collect();
    for column in 0..side {
        let pivot = (column..side).find(|row| matrix[*row][column] != 0).expect("the rows are independent");
        matrix.swap(column, pivot);
        inverse_of.swap(column, pivot);
        let factor = inverse(matrix[column][column]);
        scale(&mut matrix[column], factor);
        scale(&mut inverse_of[column], factor);
        for row in (0..side).filter(|row| *row != column) {
            let factor = matrix[row][column];
            subtract(&mut matrix, row, column, factor);
            subtract(&mut inverse_of, row, column, factor);
        }
    }
    inverse_of
}

fn scale(row: &mut Coefficients, factor: u8) {
    for value in row {
        *value = multiply(*value, factor);
    }
}

/// Takes `factor` times one row off another.
fn subtract(matrix: &mut Square, from: usize, other: usize, factor: u8) {
    for column in 0..matrix.len() {
        matrix[from][column] ^= multiply(factor, matrix[other][column]);
    }
}
