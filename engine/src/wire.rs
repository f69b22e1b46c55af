//! A session whose rows are read as they come, without a copy: the dump's hot path.
//!
//! The client libraries make an object of each value, and hold a row as a whole: half of a dump's time went into that,
//! and a row of 64 MB took twice its size. Here rows are slices of the buffer that the socket was read into, and a row
//! that does not fit is handed out in pieces. Everything else (metadata, locks, watching) goes through sqlx.
//!
//! Of the protocol it knows logging in ([`login`]), COM_QUERY and text rows. Source: MySQL's source documentation,
//! "Client/Server Protocol", and MariaDB's "Clients & Connectors".

mod login;

use crate::server::ServerConfig;
use login::Stream;
use std::io::{self, Read, Write};

/// What is read from the socket at once, at most; larger rows come in pieces.
const BUFFER: usize = 512 << 10;
/// A packet of this size continues in the next one.
const PACKET_MAX: usize = 0xff_ffff;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The server refused it.
    #[error("{message} ({number})")]
    Server {
        /// The server's error number.
        number: u16,
        /// Its message.
        message: String,
    },
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl WireError {
    /// The server's error number.
    pub(crate) fn number(&self) -> Option<u16> {
        match self {
            Self::Server { number, .. } => Some(*number),
            Self::Io(_) => None,
        }
    }

    fn of(packet: &[u8]) -> Self {
        let number = packet.get(1..3).map_or(0, |n| u16::from_le_bytes([n[0], n[1]]));
        let text = packet.get(3..).unwrap_or_default();
        // `#HY000` comes first.
        let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
        Self::Server { number, message: String::from_utf8_lossy(text).into_owned() }
    }
}

/// A session.
pub(crate) struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
    /// What has been read and not yet used.
    from: usize,
    upto: usize,
    sequence: u8,
    id: u64,
}

/// What a row's reader is handed.
pub(crate) enum RowPart<'a> {
    /// A whole row: the values, each with its length before it; see [`Values`].
    Whole(&'a [u8]),
    /// The start of a value of a row that comes in pieces: its length, or NULL.
    Value(Option<usize>),
    /// A piece of that value.
    Piece(&'a [u8]),
    /// The value's end.
    ValueEnd,
    /// The end of a row that came in pieces.
    RowEnd,
}

impl Wire {
    /// Logs in; the session's default schema is the configured one.
    pub(crate) fn connect(config: &ServerConfig) -> Result<Self, WireError> {
        let mut wire = Self { stream: Stream::open(config)?, buffer: vec![0; BUFFER], from: 0, upto: 0, sequence: 0, id: 0 };
        wire.log_in(config)?;
        wire.stream.set_patient()?;
        Ok(wire)
    }

    /// The server's number for the session.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Something that ends the session from another thread: whoever reads from it then gets an error.
    pub(crate) fn stopper(&self) -> io::Result<Stopper> {
        self.stream.stopper().map(Stopper)
    }

    /// Runs a statement for its effect.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), WireError> {
        self.query(sql).map(drop)
    }

    /// Runs a statement and keeps its rows: for small results.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, WireError> {
        let (mut rows, mut row) = (vec![], vec![]);
        self.rows::<WireError>(sql, |part| {
            match part {
                RowPart::Whole(bytes) => rows.push(Values(bytes).map(|v| v.map(<[u8]>::to_vec)).collect()),
                RowPart::Value(None) => row.push(None),
                RowPart::Value(Some(_)) => row.push(Some(vec![])),
                RowPart::Piece(bytes) => {
                    if let Some(Some(last)) = row.last_mut() {
                        last.extend_from_slice(bytes);
                    }
                }
                RowPart::ValueEnd => {}
                RowPart::RowEnd => rows.push(std::mem::take(&mut row)),
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs a statement and hands its rows to `each`, one at a time. An error of `each` leaves the session unusable.
    pub(crate) fn rows<E: From<WireError>>(&mut self, sql: &str, mut each: impl FnMut(RowPart<'_>) -> Result<(), E>) -> Result<(), E> {
        self.sequence = 0;
        self.send(&[b"\x03", sql.as_bytes()].concat()).map_err(WireError::Io)?;
        let first = self.packet()?;
        let columns = match self.buffer[first.0] {
            0x00 => return Ok(()),
            0xff => return Err(WireError::of(&self.buffer[first.0..first.1]).into()),
            0xfb => return Err(WireError::Io(io::Error::other("the server asks for a file")).into()),
            _ => Values::length(&self.buffer[first.0..first.1]).map_or(0, |(n, _)| n),
        };
        // The columns' definitions and the EOF after them say nothing that we do not know.
        for _ in 0..=columns {
            self.packet()?;
        }
        loop {
            let (len, _) = self.header()?;
            if len > BUFFER - 4 {
                self.row_in_pieces(len, columns, &mut each)?;
                continue;
            }
            self.fill(len)?;
            let (start, end) = (self.from, self.from + len);
            self.from = end;
            let packet = &self.buffer[start..end];
            match packet.first() {
                Some(0xff) => return Err(WireError::of(packet).into()),
                Some(0xfe) if len < 9 => return Ok(()),
                _ => each(RowPart::Whole(packet))?,
            }
        }
    }

    /// Hands out a row whose first packet, of `len` bytes, does not fit into the buffer.
    fn row_in_pieces<E: From<WireError>>(
        &mut self,
        len: usize,
        columns: usize,
        each: &mut impl FnMut(RowPart<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut row = Pieces { wire: self, rest: len, more: len == PACKET_MAX };
        for _ in 0..columns {
            let mut head = [0; 9];
            row.exactly(&mut head[..1])?;
            let extra = match head[0] {
                0xfb => {
                    each(RowPart::Value(None))?;
                    each(RowPart::ValueEnd)?;
                    continue;
                }
                0xfc => 2,
                0xfd => 3,
                0xfe => 8,
                _ => 0,
            };
            row.exactly(&mut head[1..=extra])?;
            let (mut left, _) = Values::length(&head).unwrap_or_default();
            each(RowPart::Value(Some(left)))?;
            while left > 0 {
                let n = row.some(left, &mut |bytes| each(RowPart::Piece(bytes)))?;
                left -= n;
            }
            each(RowPart::ValueEnd)?;
        }
        row.end()?;
        each(RowPart::RowEnd)
    }

    /// Reads a packet that is known to be small; its place in the buffer.
    fn packet(&mut self) -> Result<(usize, usize), WireError> {
        let (len, _) = self.header()?;
        if len == 0 || len > BUFFER - 4 {
            return Err(WireError::Io(io::Error::other(format!("the server sends a packet of {len} bytes where none is expected"))));
        }
        self.fill(len)?;
        let place = (self.from, self.from + len);
        self.from = place.1;
        Ok(place)
    }

    /// Reads a packet's header: its length and number.
    fn header(&mut self) -> Result<(usize, u8), WireError> {
        self.fill(4)?;
        let h = &self.buffer[self.from..self.from + 4];
        let (len, sequence) = (u32::from_le_bytes([h[0], h[1], h[2], 0]) as usize, h[3]);
        self.from += 4;
        self.sequence = sequence.wrapping_add(1);
        Ok((len, sequence))
    }

    /// Sees to it that at least `len` bytes, which fit into the buffer, are there.
    fn fill(&mut self, len: usize) -> Result<(), WireError> {
        if self.upto - self.from >= len {
            return Ok(());
        }
        if self.from + len > self.buffer.len() || self.from == self.upto {
            self.buffer.copy_within(self.from..self.upto, 0);
            (self.from, self.upto) = (0, self.upto - self.from);
        }
        while self.upto - self.from < len {
            self.read_more()?;
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), WireError> {
        match self.stream.read(&mut self.buffer[self.upto..]) {
            Ok(0) => Err(WireError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"))),
            Ok(n) => {
                self.upto += n;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(WireError::Io(e)),
        }
    }

    /// Sends one packet with the next number.
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() >= PACKET_MAX {
            return Err(io::Error::other("a statement of 16 MiB or more"));
        }
        let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
        packet[3] = self.sequence;
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet)?;
        self.stream.flush()
    }
}

impl Drop for Wire {
    /// Says goodbye, lest the server count an aborted connection; it may be gone already.
    fn drop(&mut self) {
        self.sequence = 0;
        drop(self.send(&[1]));
    }
}

/// The rest of a row that comes in pieces, over packets' ends.
struct Pieces<'a> {
    wire: &'a mut Wire,
    /// Of this packet.
    rest: usize,
    /// Another packet follows.
    more: bool,
}

impl Pieces<'_> {
    fn next_packet(&mut self) -> Result<(), WireError> {
        while self.rest == 0 {
            if !self.more {
                return Err(WireError::Io(io::Error::other("a row that ends too early")));
            }
            (self.rest, _) = self.wire.header()?;
            self.more = self.rest == PACKET_MAX;
        }
        Ok(())
    }

    fn exactly(&mut self, out: &mut [u8]) -> Result<(), WireError> {
        let mut at = 0;
        while at < out.len() {
            let left = out.len() - at;
            let n = self.some(left, &mut |bytes: &[u8]| -> Result<(), WireError> {
                out[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            })?;
            at += n;
        }
        Ok(())
    }

    /// Hands out at least one byte and at most `max`.
    fn some<E: From<WireError>>(&mut self, max: usize, each: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<usize, E> {
        self.next_packet()?;
        self.wire.fill(1)?;
        let n = max.min(self.rest).min(self.wire.upto - self.wire.from);
        each(&self.wire.buffer[self.wire.from..self.wire.from + n])?;
        self.wire.from += n;
        self.rest -= n;
        Ok(n)
    }

    /// A row of just so many bytes that its last packet is full is followed by an empty one.
    fn end(&mut self) -> Result<(), WireError> {
        while self.rest == 0 && self.more {
            (self.rest, _) = self.wire.header()?;
            self.more = self.rest == PACKET_MAX;
        }
        match self.rest {
            0 => Ok(()),
            _ => Err(WireError::Io(io::Error::other("a row that is longer than its values"))),
        }
    }
}

/// The values of a whole row; `None` is NULL.
pub(crate) struct Values<'a>(pub(crate) &'a [u8]);

impl<'a> Values<'a> {
    /// A length and how many bytes it takes.
    #[inline]
    fn length(bytes: &[u8]) -> Option<(usize, usize)> {
        let number = |n: usize| bytes.get(1..=n).map(|b| b.iter().rev().fold(0usize, |sum, &b| sum << 8 | usize::from(b)));
        Some(match *bytes.first()? {
            0xfc => (number(2)?, 3),
            0xfd => (number(3)?, 4),
            0xfe => (number(8)?, 9),
            short => (usize::from(short), 1),
        })
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if *self.0.first()? == 0xfb {
            self.0 = &self.0[1..];
            return Some(None);
        }
        let (len, head) = Self::length(self.0)?;
        let value = self.0.get(head..head + len)?;
        self.0 = &self.0[head + len..];
        Some(Some(value))
    }
}

/// Ends a session from another thread.
pub(crate) struct Stopper(login::Socket);

impl Stopper {
    /// Ends it; the server notices when it next writes.
    pub(crate) fn stop(&self) {
        self.0.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_lengths_of_every_size() {
        let mut row = vec![0xfb, 0, 2, b'h', b'i', 0xfc, 0x2c, 0x01];
        row.extend_from_slice(&[b'x'; 300]);
        row.extend_from_slice(&[0xfd, 0x00, 0x00, 0x01]);
        row.extend_from_slice(&vec![b'y'; 65536]);
        let values: Vec<_> = Values(&row).map(|v| v.map(<[u8]>::len)).collect();
        assert_eq!(values, [None, Some(0), Some(2), Some(300), Some(65536)]);
        assert_eq!(Values(&[5, b'a']).count(), 0, "cut off");
    }

    #[test]
    fn errors_are_read() {
        let error = WireError::of(b"\xff\x84\x05#HY000Table definition has changed");
        assert_eq!((error.number(), error.to_string().as_str()), (Some(1412), "Table definition has changed (1412)"));
    }
}
