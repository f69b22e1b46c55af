//! Values as SQL text, each in the one form that both the dump and the checksums use.
//!
//! The text is `(value,value,...)`:
//!
//! | type | form |
//! |---|---|
//! | whole numbers, DECIMAL, YEAR | as the server writes them |
//! | FLOAT, DOUBLE | the shortest text that reads back the same; minus zero is `-0e0` |
//! | BINARY, BLOB, BIT, spatial, VECTOR | `0x` and capital hexadecimal digits; `''` when empty |
//! | everything else | in single quotes, utf8mb4, with `\\`, `\'`, `\0`, `\n`, `\r` and `\Z` |
//! | NULL | `NULL` |

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A number, as it is.
    Plain,
    /// A number with a binary exponent.
    Float,
    /// A string.
    Text,
    /// Bytes.
    Hex,
}

impl Form {
    /// The form for a type, by the first word of its name in lower case.
    pub(crate) fn of(kind: &str) -> Self {
        match kind {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => Self::Plain,
            "float" | "double" => Self::Float,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "bit" | "vector" | "geometry" | "point"
            | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection" | "geomcollection" => {
                Self::Hex
            }
            _ => Self::Text,
        }
    }

    /// Writes a whole value; `None` is NULL.
    pub(crate) fn write(self, value: Option<&[u8]>, out: &mut Vec<u8>) {
        match value {
            None => out.extend_from_slice(b"NULL"),
            Some(value) => {
                self.begin(value.len(), out);
                self.piece(value, out);
                self.end(value.len(), out);
            }
        }
    }

    /// Writes what comes before a value of `len` bytes.
    pub(crate) fn begin(self, len: usize, out: &mut Vec<u8>) {
        match self {
            Self::Text => out.push(b'\''),
            Self::Hex if len == 0 => out.push(b'\''),
            Self::Hex => out.extend_from_slice(b"0x"),
            Self::Plain | Self::Float => {}
        }
    }

    /// Writes a piece of a value; numbers come in one piece.
    pub(crate) fn piece(self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Plain => out.extend_from_slice(bytes),
            Self::Float if bytes == b"-0" => out.extend_from_slice(b"-0e0"),
            Self::Float => out.extend_from_slice(bytes),
            Self::Text => escape(bytes, out),
            Self::Hex => hex(bytes, out),
        }
    }

    /// Writes what comes after a value of `len` bytes.
    pub(crate) fn end(self, len: usize, out: &mut Vec<u8>) {
        if self == Self::Text || (self == Self::Hex && len == 0) {
            out.push(b'\'');
        }
    }
}

/// What stands for a byte in a string after the backslash; 0 for a byte that stands for itself.
const fn escaped(byte: u8) -> u8 {
    match byte {
        0 => b'0',
        b'\n' => b'n',
        b'\r' => b'r',
        0x1a => b'Z',
        b'\'' | b'\\' => byte,
        _ => 0,
    }
}

const ESCAPES: [u8; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        table[byte] = escaped(byte as u8);
        byte += 1;
    }
    table
};

/// Whether none of eight bytes can need an escape: all are at least 0x20 and neither quote nor backslash.
fn all_plain(eight: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (control | zero(eight ^ (ONES * b'\'' as u64)) | zero(eight ^ (ONES * b'\\' as u64))) & HIGHS == 0
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        if let Some(eight) = bytes.get(at..at + 8)
            && all_plain(u64::from_le_bytes(eight.try_into().unwrap_or_default()))
        {
            at += 8;
            continue;
        }
        let upto = (at + 8).min(bytes.len());
        while at < upto {
            let escape = ESCAPES[bytes[at] as usize];
            if escape != 0 {
                out.extend_from_slice(&bytes[from..at]);
                out.extend_from_slice(&[b'\\', escape]);
                from = at + 1;
            }
            at += 1;
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    out.extend(bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, value: Option<&[u8]>) -> String {
        let mut out = vec![];
        form.write(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_form() {
        assert_eq!(written(Form::Plain, Some(b"00042")), "00042");
        assert_eq!(written(Form::Float, Some(b"-0")), "-0e0");
        assert_eq!(written(Form::Float, Some(b"1.5e-10")), "1.5e-10");
        assert_eq!(written(Form::Hex, Some(b"")), "''");
        assert_eq!(written(Form::Hex, Some(b"\x00\xff\x1a")), "0x00FF1A");
        assert_eq!(written(Form::Text, Some(b"")), "''");
        assert_eq!(written(Form::Text, Some("it's\\ \"ж😀\"\n\r\0\x1a\t%".as_bytes())), "'it\\'s\\\\ \"ж😀\"\\n\\r\\0\\Z\t%'");
        assert_eq!(written(Form::Text, None), "NULL");
    }

    #[test]
    fn every_byte_at_every_place_is_escaped_like_one_alone() {
        for byte in 0..=255u8 {
            for place in 0..19 {
                let mut value = [b'x'; 19];
                value[place] = byte;
                let mut out = vec![];
                escape(&value, &mut out);
                let expected: Vec<u8> =
                    value.iter().flat_map(|&b| if escaped(b) == 0 { vec![b] } else { vec![b'\\', escaped(b)] }).collect();
                assert_eq!(out, expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn pieces_make_the_same_text() {
        for form in [Form::Text, Form::Hex] {
            let value = b"it's\\ a \n line\0 and more";
            let mut out = vec![];
            form.begin(value.len(), &mut out);
            value.chunks(3).for_each(|piece| form.piece(piece, &mut out));
            form.end(value.len(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), written(form, Some(value)));
        }
    }
}
