//! Little-endian reading and writing of fixed layouts.

/// Fills a slice from its start.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Begins at the start of `bytes`, which must be long enough.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Writer { bytes, at: 0 }
    }

    /// Bytes written so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Appends `count` zero bytes.
    pub fn zeroes(&mut self, count: usize) {
        self.bytes[self.at..self.at + count].fill(0);
        self.at += count;
    }

    /// Appends zeroes up to a multiple of `alignment`.
    pub fn pad(&mut self, alignment: usize) {
        self.zeroes(self.at.next_multiple_of(alignment) - self.at);
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }
}

/// What was read is shorter than its layout says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooShort;

/// Reads a slice from its start.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], TooShort> {
        let end = self.at.checked_add(count).ok_or(TooShort)?;
        let bytes = self.bytes.get(self.at..end).ok_or(TooShort)?;
        self.at = end;
        Ok(bytes)
    }

    /// Skips up to a multiple of `alignment`.
    pub fn pad(&mut self, alignment: usize) -> Result<(), TooShort> {
        self.bytes(self.at.next_multiple_of(alignment) - self.at).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TooShort> {
        self.bytes(N)?.try_into().map_err(|_| TooShort)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, TooShort> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, TooShort> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, TooShort> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, TooShort> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, TooShort> {
        self.array().map(u128::from_le_bytes)
    }
}
