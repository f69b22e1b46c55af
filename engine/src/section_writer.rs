//! Where an archive's content goes: a stream that can be cut at places from which it can be read alone.

use std::io;

/// A writer that counts and can be cut.
pub trait SectionWriter: io::Write {
    /// Bytes of uncompressed content written so far.
    fn raw_offset(&self) -> u64;

    /// Makes the next byte readable by seeking near it: a gzip member begins here, or did a little before.
    fn cut(&mut self) -> io::Result<()>;
}
