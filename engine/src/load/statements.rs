//! A dump's text as statements.

use crate::sql_scan::{Event, Scanner};
use std::io::{self, Read};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// One statement, without its delimiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: Vec<u8>,
}

impl Statement {
    /// Whether it inserts rows.
    pub(super) fn is_rows(&self) -> bool {
        let words = self.words();
        words.starts_with("INSERT ") || words.starts_with("REPLACE ")
    }

    /// Whether it only makes sense where one session loads everything; or is about the server, or another schema than the one
    /// that is loaded: dumps of other programs may say so.
    pub(super) fn is_for_one_session(&self) -> bool {
        let words = self.words();
        const SKIPPED: [&str; 12] = [
            "LOCK TABLES",
            "UNLOCK TABLES",
            "COMMIT",
            "SET AUTOCOMMIT",
            "USE ",
            "CREATE DATABASE",
            "DROP DATABASE",
            "SET GLOBAL",
            "SET @@GLOBAL",
            "CHANGE MASTER",
            "CHANGE REPLICATION",
            "SET @@SESSION.SQL_LOG_BIN",
        ];
        SKIPPED.iter().any(|w| words.starts_with(w))
            || (words.starts_with("ALTER TABLE") && (ends(&self.text, b"DISABLE KEYS */") || ends(&self.text, b"ENABLE KEYS */")))
    }

    /// Its text for another schema, whose quoted name is given: mysqldump names the schema where a routine or trigger
    /// was made under another default character set, to set that meanwhile.
    pub(super) fn into_text(self, schema: &str) -> Vec<u8> {
        if !self.words().starts_with("ALTER DATABASE") {
            return self.text;
        }
        let Some(open) = self.text.iter().position(|&b| b == b'`') else { return self.text };
        let mut end = open + 1;
        while let Some(quote) = self.text[end..].iter().position(|&b| b == b'`') {
            end += quote + 1;
            if self.text.get(end) != Some(&b'`') {
                break;
            }
            end += 1;
        }
        [&self.text[..open], schema.as_bytes(), &self.text[end..]].concat()
    }

    /// Its text for a client that sends UTF-8 alone: strings of other bytes are written in hexadecimal. `None` when such bytes are
    /// elsewhere. Dumps of other programs hold binary values as they are.
    ///
    /// Reads strings as sessions without NO_BACKSLASH_ESCAPES do, as all dump tools set it.
    pub(super) fn to_utf8(text: Vec<u8>) -> Option<String> {
        let text = match String::from_utf8(text) {
            Ok(text) => return Some(text),
            Err(error) => error.into_bytes(),
        };
        let (mut out, mut at) = (Vec::with_capacity(text.len() + text.len() / 4), 0);
        while at < text.len() {
            let quote = text[at];
            if !matches!(quote, b'\'' | b'`' | b'"') {
                out.push(quote);
                at += 1;
                continue;
            }
            let start = at;
            at += 1;
            let mut value = Vec::new();
            loop {
                match *text.get(at)? {
                    b'\\' if quote != b'`' => {
                        value.push(match *text.get(at + 1)? {
                            b'0' => 0,
                            b'b' => 8,
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            b'Z' => 26,
                            other => other,
                        });
                        at += 2;
                    }
                    byte if byte == quote && text.get(at + 1) == Some(&quote) => {
                        value.push(quote);
                        at += 2;
                    }
                    byte => {
                        at += 1;
                        if byte == quote {
                            break;
                        }
                        value.push(byte);
                    }
                }
            }
            if quote == b'\'' && std::str::from_utf8(&text[start..at]).is_err() {
                out.extend_from_slice(format!("x'{}'", hex::encode(value)).as_bytes());
            } else {
                out.extend_from_slice(&text[start..at]);
            }
        }
        String::from_utf8(out).ok()
    }

    /// Its beginning, in capitals, with the opening of `/*!40000 ` left out.
    fn words(&self) -> String {
        let head = String::from_utf8_lossy(&self.text[..self.text.len().min(64)]).to_uppercase();
        let versioned = head.strip_prefix("/*!").or_else(|| head.strip_prefix("/*M!"));
        let head = versioned.map_or(head.as_str(), |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        head.trim_start().to_owned()
    }
}

fn ends(text: &[u8], with: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    text.len() >= with.len() && text[text.len() - with.len()..].eq_ignore_ascii_case(with)
}

/// Hands each statement to `each`, until that says false. Tells whether the text ended with the end of a statement.
pub(super) fn split(mut from: impl Read, mut each: impl FnMut(Statement) -> bool) -> io::Result<bool> {
    let (mut scanner, mut events) = (Scanner::default(), Vec::new());
    // `buffer[..held]` begins at offset `base` of the stream.
    let (mut buffer, mut held, mut base) = (vec![0; 2 * CHUNK], 0, 0u64);
    loop {
        if buffer.len() < held + CHUNK {
            buffer.resize(held + CHUNK, 0);
        }
        let read = match from.read(&mut buffer[held..]) {
            Ok(0) => return Ok(scanner.is_between()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        scanner.feed(&buffer[held..held + read], &mut events);
        held += read;
        let mut upto = 0;
        for event in events.drain(..) {
            let Event::Statement { start, end } = event else { continue };
            upto = (end - base) as usize;
            if !each(Statement { text: buffer[(start - base) as usize..upto].to_vec() }) {
                return Ok(true);
            }
        }
        buffer.copy_within(upto..held, 0);
        (held, base) = (held - upto, base + upto as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Vec<String>, bool) {
        let mut all = Vec::new();
        let complete = split(text.as_bytes(), |s| {
            all.push(String::from_utf8(s.text).unwrap());
            true
        });
        (all, complete.unwrap())
    }

    #[test]
    fn statements_end_where_the_client_ends_them() {
        let (all, complete) = of(
            "-- a comment; here\nSET a = ';''\\';';\n\n/*!40101 SET b=1 */;\nDELIMITER ;;\n/*!50003 CREATE TRIGGER t BEGIN a; b; END */;;\nDELIMITER ;\nINSERT INTO `t;` VALUES (1,'x;');\n-- end\n",
        );
        assert_eq!(
            all,
            [
                "SET a = ';''\\';'",
                "/*!40101 SET b=1 */",
                "/*!50003 CREATE TRIGGER t BEGIN a; b; END */",
                "INSERT INTO `t;` VALUES (1,'x;')"
            ]
        );
        assert!(complete);
        assert!(!of("SELECT 1;\nINSERT INTO t VALUES (1").1);
        assert!(of("").1);
    }

    #[test]
    fn every_statement_of_real_dumps_comes_once() {
        for dump in [&include_bytes!("../sql_scan/testdata/mysql.sql")[..], include_bytes!("../sql_scan/testdata/mariadb.sql")] {
            let mut all = Vec::new();
            assert!(
                split(dump, |s| {
                    all.push(s);
                    true
                })
                .unwrap()
            );
            let text = String::from_utf8_lossy(dump);
            let inserts = text.lines().filter(|l| l.starts_with("INSERT INTO")).count();
            assert_eq!(all.iter().filter(|s| s.is_rows()).count(), inserts);
            let skipped = text
                .lines()
                .filter(|l| {
                    l.ends_with("KEYS */;")
                        || l.starts_with("LOCK TABLES")
                        || l.starts_with("UNLOCK TABLES")
                        || l.starts_with("SET @@SESSION.SQL_LOG_BIN")
                })
                .count();
            assert_eq!(all.iter().filter(|s| s.is_for_one_session()).count(), skipped);
        }
    }

    #[test]
    fn binary_strings_are_written_in_hexadecimal() {
        let sql = |text: &[u8]| Statement::to_utf8(text.to_vec());
        assert_eq!(sql("INSERT INTO t VALUES ('é\\'',1)".as_bytes()).unwrap(), "INSERT INTO t VALUES ('é\\'',1)");
        assert_eq!(
            sql(b"INSERT INTO `t'` VALUES ('it\\'s',_binary '\\0\xff\\n\\Z;'),('\xc3\xa9')").unwrap(),
            "INSERT INTO `t'` VALUES ('it\\'s',_binary x'00ff0a1a3b'),('\u{e9}')"
        );
        assert_eq!(sql(b"INSERT INTO \xff VALUES (1)"), None);
        assert_eq!(sql(b"INSERT INTO t VALUES ('\xff"), None);
    }

    #[test]
    fn what_a_statement_is() {
        let s = |text: &str| Statement { text: text.as_bytes().to_vec() };
        assert!(s("/*!40000 ALTER TABLE `t` DISABLE KEYS */").is_for_one_session());
        assert!(s("set autocommit=0").is_for_one_session());
        assert!(!s("ALTER TABLE `t` ADD KEY (a)").is_for_one_session());
        for other in [
            "USE `heratio`",
            "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `a`",
            "/*!40000 DROP DATABASE IF EXISTS `a`*/",
            "SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'x:1'",
        ] {
            assert!(s(other).is_for_one_session(), "{other}");
        }
        assert!(s("insert into t values (1)").is_rows() && s("REPLACE INTO t VALUES (1)").is_rows());
        let altered = s("/*!50003 ALTER DATABASE `a``b` CHARACTER SET latin1 */").into_text("`c`");
        assert_eq!(altered, b"/*!50003 ALTER DATABASE `c` CHARACTER SET latin1 */");
        assert_eq!(s("ALTER DATABASE x").into_text("`c`"), b"ALTER DATABASE x");
    }
}
