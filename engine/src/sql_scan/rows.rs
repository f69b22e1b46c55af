//! Counting tuples, fast.

use super::{Lex, Scanner};
use memchr::memchr2;

impl Scanner {
    /// The hot loop: counts tuples up to the first byte that is not plainly part of one.
    pub(super) fn skip_rows(&mut self, rest: &[u8]) -> usize {
        if self.sql_mode.no_backslash {
            return 0;
        }
        let (len, mut depth, mut rows, mut at) = (rest.len(), self.depth, self.rows, 0);
        'tuples: while at < len {
            if depth == 0 {
                while at < len && matches!(rest[at], b',' | b' ' | b'\n' | b'\r' | b'\t') {
                    at += 1;
                }
                if at == len || rest[at] != b'(' {
                    break;
                }
            }
            while at < len && PLAIN[rest[at] as usize] {
                at += 1;
            }
            match rest.get(at) {
                Some(b'(') => {
                    rows += u64::from(depth == 0);
                    depth += 1;
                }
                Some(b')') => depth -= 1,
                Some(b'\'') => {
                    at += 1;
                    loop {
                        at += string_end(&rest[at..]);
                        match rest.get(at) {
                            Some(b'\'') => break,
                            Some(_) if at + 1 < len => at += 2,
                            // The chunk ends in the string, or just after a backslash in it.
                            open => {
                                self.lex = if open.is_some() { Lex::Escaped(b'\'') } else { Lex::Quoted(b'\'') };
                                at = len;
                                break 'tuples;
                            }
                        }
                    }
                }
                // A minus sign or a division is as plain as a digit.
                Some(&sign @ (b'-' | b'/')) if rest.get(at + 1).is_some_and(|&next| next != sign && next != b'*') => {}
                _ => break,
            }
            at += 1;
        }
        (self.depth, self.rows) = (depth, rows);
        at
    }
}

/// Bytes inside a tuple that mean nothing to us.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let special = b"'\"`()-#/;";
    let mut at = 0;
    while at < special.len() {
        plain[special[at] as usize] = false;
        at += 1;
    }
    plain
};

/// Where a string's next quote or backslash is. Most strings are too short for memchr to pay.
fn string_end(rest: &[u8]) -> usize {
    const SHORT: usize = 12;
    match rest.iter().take(SHORT).position(|&b| b == b'\'' || b == b'\\') {
        Some(at) => at,
        None if rest.len() <= SHORT => rest.len(),
        None => SHORT + memchr2(b'\'', b'\\', &rest[SHORT..]).unwrap_or(rest.len() - SHORT),
    }
}
