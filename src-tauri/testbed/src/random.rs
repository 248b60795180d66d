//! Numbers and bytes that look random and are the same for the same seed.

/// A row of numbers: Marsaglia's xorshift64 (Journal of Statistical Software 8, 2003), random enough for gzip.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns the row that begins after this number, which must not be 0.
    #[must_use]
    pub const fn after(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns the next bytes, which do not compress.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}
