//! Gzip as independent members, compressed on several threads.
//!
//! A gzip file may be a sequence of members (RFC 1952, section 2.2); every reader concatenates them.
//! Members that start at known places can be decompressed alone and in parallel. An empty member's
//! extra field (section 2.3.1.1) carries data that decompression does not see: the manifest.
//! Members are small enough to be compressed whole, in memory, which is what libdeflate is made for.

use crate::effort::Effort;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

/// Uncompressed bytes of a member, unless a section ends before. Larger members compress hardly better
/// (88.9 MB against 88.0 MB for 272 MB of SQL) and cost memory per thread.
pub const MEMBER_BYTES: usize = 1 << 20;

/// A member is not ended by a cut before it has so many bytes: a thousand small tables would each pay for a start anew.
const MEMBER_LEAST: usize = 32 << 10;

/// libdeflate's 5 packs a little tighter than gzip's 6, which a user of `mysqldump | gzip` compares with, in a quarter of
/// its time. Measured on 206 MB of Heratio's SQL: 44.2 MB in 2.3 s; gzip -6 45.0 MB in 8.2 s; zlib-rs 6 45.3 MB in 3.7 s.
const LEVEL: i32 = 5;

/// Bytes of the sample that tells whether a member is worth compressing.
const SAMPLE: usize = 32 << 10;
/// Of its size, what it must get below.
const WORTHWHILE_PERCENT: usize = 97;

/// A member on its way: the sender side compresses, the receiver side writes in order.
type Compressed = (u64, Vec<u8>);

/// The sink, and each member's (uncompressed, compressed) bytes.
type Written<S> = (S, Vec<(u64, u64)>);

/// Compresses a stream into members on `threads` threads and hands them, in order, to a sink on a thread of its own.
///
/// At most `2 * threads + 2` members are in memory. Dropping it without [`MemberWriter::finish`]
/// stops the threads and discards what they hold.
pub struct MemberWriter<S> {
    buffer: Vec<u8>,
    work: Option<mpsc::SyncSender<(Vec<u8>, mpsc::SyncSender<Compressed>)>>,
    order: Option<mpsc::SyncSender<mpsc::Receiver<Compressed>>>,
    compressors: Vec<JoinHandle<()>>,
    output: Option<JoinHandle<io::Result<Written<S>>>>,
}

impl<S: Write + Send + 'static> MemberWriter<S> {
    /// Starts compressing threads and one that writes to `sink`, all as nice as `effort` says.
    pub fn new(sink: S, effort: &Effort) -> Self {
        let threads = effort.threads.max(1);
        let (work, jobs) = mpsc::sync_channel::<(Vec<u8>, mpsc::SyncSender<Compressed>)>(threads);
        let jobs = Arc::new(Mutex::new(jobs));
        let compressors = (0..threads)
            .map(|_| {
                let jobs = jobs.clone();
                effort.spawn(move || {
                    let mut packer = Packer::new();
                    loop {
                        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((raw, reply)) = next else { return };
                        // The receiver is gone only when the output failed, which the writer reports.
                        if reply.send((raw.len() as u64, packer.member(&raw))).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        let (order, replies) = mpsc::sync_channel::<mpsc::Receiver<Compressed>>(threads + 2);
        let output = effort.spawn(move || write_in_order(sink, replies));
        Self { buffer: Vec::with_capacity(MEMBER_BYTES), work: Some(work), order: Some(order), compressors, output: Some(output) }
    }

    /// Ends the current member if it is worth one by itself; then the next byte starts another.
    pub fn cut(&mut self) -> io::Result<()> {
        if self.buffer.len() < MEMBER_LEAST { Ok(()) } else { self.end_member() }
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let raw = std::mem::replace(&mut self.buffer, Vec::with_capacity(MEMBER_BYTES));
        let (reply, receiver) = mpsc::sync_channel(1);
        let sent = match (&self.order, &self.work) {
            (Some(order), Some(work)) => order.send(receiver).is_ok() && work.send((raw, reply)).is_ok(),
            _ => false,
        };
        if sent { Ok(()) } else { Err(self.take_error()) }
    }

    /// Ends the last member and returns the sink and each member's (uncompressed, compressed) bytes.
    pub fn finish(mut self) -> io::Result<Written<S>> {
        self.end_member()?;
        self.stop().unwrap_or_else(|| Err(io::Error::other("the gzip writer was already closed")))
    }

    /// Closes the channels, waits for the threads and returns what the output thread said.
    fn stop(&mut self) -> Option<io::Result<Written<S>>> {
        self.work = None;
        self.order = None;
        for thread in self.compressors.drain(..) {
            if thread.join().is_err() {
                return Some(Err(io::Error::other("a compressing thread panicked")));
            }
        }
        let output = self.output.take()?;
        Some(output.join().unwrap_or_else(|_| Err(io::Error::other("the output thread panicked"))))
    }

    fn take_error(&mut self) -> io::Error {
        match self.stop() {
            Some(Err(error)) => error,
            _ => io::Error::other("the gzip writer was already closed after an error"),
        }
    }
}

impl<S: Write + Send + 'static> Write for MemberWriter<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= MEMBER_BYTES {
            self.end_member()?;
        }
        let n = buf.len().min(MEMBER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Does nothing: members are complete only at a cut.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S> Drop for MemberWriter<S> {
    fn drop(&mut self) {
        self.work = None;
        self.order = None;
        for thread in self.compressors.drain(..) {
            // A panic there has been reported by `finish`, or nobody waits for the result any more.
            drop(thread.join());
        }
        if let Some(output) = self.output.take() {
            drop(output.join());
        }
    }
}

fn write_in_order<S: Write>(mut sink: S, replies: mpsc::Receiver<mpsc::Receiver<Compressed>>) -> io::Result<Written<S>> {
    let mut members = Vec::new();
    for reply in replies {
        let (raw, bytes) = reply.recv().map_err(|_| io::Error::other("a compressing thread stopped"))?;
        sink.write_all(&bytes)?;
        members.push((raw, bytes.len() as u64));
    }
    Ok((sink, members))
}

/// Decompresses members whose sizes are known, on several threads, and gives their content in order.
///
/// At most `2 * threads + 2` members are in memory. Each member's CRC-32 and size are checked, and that it is one member.
pub struct MemberReader {
    order: mpsc::Receiver<mpsc::Receiver<io::Result<Vec<u8>>>>,
    current: Vec<u8>,
    at: usize,
}

impl MemberReader {
    /// Reads `source` from where it stands; `members` as [`MemberWriter::finish`] told them.
    pub fn new<R: Read + Send + 'static>(mut source: R, members: Vec<(u64, u64)>, effort: &Effort) -> Self {
        let threads = effort.threads.max(1);
        let (work, jobs) = mpsc::sync_channel::<(u64, Vec<u8>, mpsc::SyncSender<io::Result<Vec<u8>>>)>(threads);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let jobs = jobs.clone();
            effort.spawn(move || {
                let mut unpacker = Unpacker::new();
                loop {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((raw, packed, reply)) = next else { return };
                    // The receiver is gone when the reader is.
                    if reply.send(unpacker.member(raw, &packed)).is_err() {
                        return;
                    }
                }
            });
        }
        let (sender, order) = mpsc::sync_channel(threads + 2);
        effort.spawn(move || {
            for (raw, len) in members {
                let (reply, receiver) = mpsc::sync_channel(1);
                if sender.send(receiver).is_err() {
                    return;
                }
                let packed = match read_packed(&mut source, len) {
                    Ok(packed) => packed,
                    Err(error) => {
                        // The receiver is gone when the reader is.
                        drop(reply.send(Err(error)));
                        return;
                    }
                };
                if work.send((raw, packed, reply)).is_err() {
                    return;
                }
            }
        });
        Self { order, current: Vec::new(), at: 0 }
    }
}

impl Read for MemberReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            let Ok(next) = self.order.recv() else { return Ok(0) };
            self.current = next.recv().map_err(|_| io::Error::other("a decompressing thread stopped"))??;
            self.at = 0;
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The next member as it is in the file. One of ours is never much larger than its content.
pub(crate) fn read_packed(source: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    if len > 8 * MEMBER_BYTES as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a gzip member is larger than any of ours"));
    }
    let mut packed = vec![0; len as usize];
    source.read_exact(&mut packed)?;
    Ok(packed)
}

/// Unpacks members; what it needs for that is kept between them.
pub(crate) struct Unpacker(Decompressor);

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self(Decompressor::new())
    }

    /// A whole member's content, which must be of the size that the index says. libdeflate checks CRC-32 and length
    /// (RFC 1952, section 2.3.1).
    pub(crate) fn member(&mut self, raw: u64, packed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let size = packed.last_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
        // Members are at most this large; a damaged index must not make us ask for more.
        if size != raw || raw > 4 * MEMBER_BYTES as u64 {
            return Err(damaged("a gzip member is not of the size that the index says".to_owned()));
        }
        let mut content = vec![0; raw as usize];
        match self.0.gzip_decompress(packed, &mut content) {
            Ok(n) if n == content.len() => Ok(content),
            Ok(_) => Err(damaged("a gzip member is not of the size that the index says".to_owned())),
            Err(error) => Err(damaged(format!("a gzip member is damaged: {error}"))),
        }
    }
}

/// Makes members; what it needs for that is kept between them.
struct Packer {
    good: Compressor,
    fast: Compressor,
    stored: Compressor,
}

impl Packer {
    fn new() -> Self {
        let at = |level| Compressor::new(CompressionLvl::new(level).unwrap_or_default());
        Self { good: at(LEVEL), fast: at(1), stored: at(0) }
    }

    /// One complete gzip member holding `raw`, stored as it is where compressing would not be worth its time.
    fn member(&mut self, raw: &[u8]) -> Vec<u8> {
        if self.is_incompressible(raw) { encode(&mut self.stored, raw) } else { encode(&mut self.good, raw) }
    }

    /// Whether a sample from the middle, 1/32 of a full member, hardly gets smaller at the fastest level: pictures, films, archives.
    fn is_incompressible(&mut self, raw: &[u8]) -> bool {
        if raw.len() < 4 * SAMPLE {
            return false;
        }
        let middle = raw.len() / 2;
        let sample = &raw[middle - SAMPLE / 2..middle + SAMPLE / 2];
        encode(&mut self.fast, sample).len() * 100 >= SAMPLE * WORTHWHILE_PERCENT
    }
}

/// One complete gzip member holding `raw`.
pub fn member(raw: &[u8]) -> Vec<u8> {
    Packer::new().member(raw)
}

fn encode(compressor: &mut Compressor, raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0; compressor.gzip_compress_bound(raw.len())];
    // The only error is too little room, and the bound is what libdeflate itself names.
    let len = compressor.gzip_compress(raw, &mut out).unwrap_or_else(|_| unreachable!("less room than libdeflate's own bound"));
    out.truncate(len);
    out.shrink_to_fit();
    out
}

/// Bytes around the data of an empty member: header 10, XLEN 2, subfield header 4, empty deflate block 2, CRC and size 8.
pub const EXTRA_OVERHEAD: usize = 26;
/// Longest data that one extra field carries (XLEN is 16 bits and counts the subfield header).
pub const EXTRA_MAX: usize = 65_535 - 4;

/// An empty member whose extra field's subfield `id` carries `data` (at most [`EXTRA_MAX`] bytes).
pub fn extra_member(id: [u8; 2], data: &[u8]) -> Vec<u8> {
    debug_assert!(data.len() <= EXTRA_MAX);
    let len = data.len() as u16;
    let mut out = Vec::with_capacity(data.len() + EXTRA_OVERHEAD);
    // ID1 ID2, CM = deflate, FLG = FEXTRA, MTIME 0, XFL 0, OS unknown.
    out.extend_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
    out.extend_from_slice(&(len + 4).to_le_bytes());
    out.extend_from_slice(&id);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(data);
    // A final, empty, fixed-Huffman block; CRC-32 and size of nothing.
    out.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

/// The data of an empty member made by [`extra_member`] at the start of `bytes`, and the member's length.
pub fn read_extra(id: [u8; 2], bytes: &[u8]) -> Option<(&[u8], usize)> {
    let header = bytes.get(..16)?;
    if header[..4] != [0x1f, 0x8b, 8, 4] || header[12..14] != id {
        return None;
    }
    let len = u16::from_le_bytes([header[14], header[15]]) as usize;
    let data = bytes.get(16..16 + len)?;
    (bytes.get(16 + len..len + EXTRA_OVERHEAD)? == [3, 0, 0, 0, 0, 0, 0, 0, 0, 0]).then_some((data, len + EXTRA_OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_concatenate_and_each_reads_alone() {
        let mut writer = MemberWriter::new(Vec::new(), &Effort::full(2));
        let mut raw = Vec::new();
        for i in 0..400_000u32 {
            let line = format!("row {i} of the test\n");
            writer.write_all(line.as_bytes()).unwrap();
            raw.extend_from_slice(line.as_bytes());
            if i % 100_000 == 99_999 {
                writer.cut().unwrap();
                writer.cut().unwrap();
            }
        }
        let (file, members) = writer.finish().unwrap();
        let mut all = Vec::new();
        flate2::read::MultiGzDecoder::new(&file[..]).read_to_end(&mut all).unwrap();
        assert!(all == raw);
        assert_eq!(members.iter().map(|m| m.0).sum::<u64>(), raw.len() as u64);
        assert_eq!(members.iter().map(|m| m.1).sum::<u64>(), file.len() as u64);
        let mut parallel = Vec::new();
        MemberReader::new(io::Cursor::new(file.clone()), members.clone(), &Effort::full(2)).read_to_end(&mut parallel).unwrap();
        assert!(parallel == raw);
        for (bad, at) in [("a flipped bit", 100), ("the end is missing", file.len())] {
            let mut file = file.clone();
            if at == file.len() {
                file.truncate(at - 9)
            } else {
                file[at] ^= 1
            }
            let read = MemberReader::new(io::Cursor::new(file), members.clone(), &Effort::full(2)).read_to_end(&mut Vec::new());
            assert!(read.is_err(), "{bad}");
        }
        let mut longer = members.clone();
        longer[0].0 += 1;
        assert!(MemberReader::new(io::Cursor::new(file.clone()), longer, &Effort::full(2)).read_to_end(&mut Vec::new()).is_err());
        let (mut at, mut raw_at) = (0, 0);
        for (raw_len, len) in members {
            let mut one = Vec::new();
            flate2::read::GzDecoder::new(&file[at..at + len as usize]).read_to_end(&mut one).unwrap();
            assert!(one == raw[raw_at..raw_at + raw_len as usize]);
            at += len as usize;
            raw_at += raw_len as usize;
        }
    }

    #[test]
    fn noise_is_stored_and_text_is_not() {
        let mut seed = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 56) as u8
        })
        .take(MEMBER_BYTES)
        .collect();
        let text: Vec<u8> = (0..).flat_map(|i: u32| format!("row {i}\n").into_bytes()).take(MEMBER_BYTES).collect();
        let mut packer = Packer::new();
        assert!(packer.is_incompressible(&noise) && !packer.is_incompressible(&text));
        assert!(!packer.is_incompressible(&noise[..SAMPLE]), "short ones are compressed whatever they are");
        // Half and half: the sample lies across, so it is compressed.
        let half = [&noise[..MEMBER_BYTES / 2], &text[..MEMBER_BYTES / 2]].concat();
        for raw in [noise, text, half] {
            let packed = member(&raw);
            assert!(packed.len() <= raw.len() + raw.len() / 1000 + 64);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
            assert!(back == raw);
        }
    }

    #[test]
    fn a_sink_that_fails_is_reported_with_its_own_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buf.len()).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = MemberWriter::new(Full(3000), &Effort::full(2));
        let mut seed = 1u64;
        let error = loop {
            let noise: Vec<u8> = (0..MEMBER_BYTES)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 56) as u8
                })
                .collect();
            if let Err(error) = writer.write_all(&noise) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn an_extra_member_is_empty_to_gunzip_and_gives_its_data_back() {
        let data = vec![7u8; EXTRA_MAX];
        let bytes = extra_member(*b"HM", &data);
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
        assert!(out.is_empty());
        assert_eq!(read_extra(*b"HM", &bytes), Some((&data[..], bytes.len())));
        assert_eq!(read_extra(*b"HF", &bytes), None);
        for cut in 0..60 {
            assert_eq!(read_extra(*b"HM", &bytes[..bytes.len() - 1 - cut]), None);
        }
    }
}
