//! Reads a dump as it streams by: where its parts begin, what it creates, how many rows each table has,
//! its binary log position, and whether it is complete.
//!
//! The scanner knows strings, quoted names, comments, versioned comments (`/*! */`, whose content is code)
//! and DELIMITER lines as the mysql client does, so text inside data or routine bodies is never taken for the
//! dump's own. Chunks may end anywhere.

mod comments;
mod event;
mod head;
mod rows;

pub use event::{Event, ObjectKind, SectionKind};
use head::Meaning;
use memchr::{memchr, memchr2};

/// How much of a statement's beginning is looked at, in bytes.
const HEAD_MAX: usize = 1 << 10;
/// How much of a comment at top level is looked at, in bytes; GTID sets can be long.
const COMMENT_MAX: usize = 1 << 20;
/// The longest run of comment lines that is held back for the heading that it may contain, in bytes.
const BLOCK_MAX: u64 = 4 << 10;

/// See the module's text.
#[derive(Clone)]
pub struct Scanner {
    /// Offset of the byte being looked at.
    pos: u64,
    mode: Mode,
    lex: Lex,
    /// Inside `/*!`.
    versioned: bool,
    /// The number after the `/*!` with which the statement began; 0 when it began otherwise.
    version: u32,
    /// Where the `-`, `/` or `#` began whose meaning is not yet known.
    token: u64,
    /// Where a `;` stands inside `/*!` that nothing but white space has followed, while `;` is not the delimiter.
    semicolon: Option<u64>,
    /// The statement's beginning, comments left out.
    head: Vec<u8>,
    head_start: u64,
    delimiter: Vec<u8>,
    /// How many bytes of the delimiter have been seen in a row.
    matched: usize,
    /// Of an INSERT: open parentheses, the word being read, rows, table.
    depth: u32,
    word: Vec<u8>,
    rows: u64,
    table: String,
    /// The comment being read at top level.
    comment: Vec<u8>,
    /// Where the run of comment lines began that we are in.
    block: Option<u64>,
    line_start: bool,
    section: (SectionKind, String),
    sql_mode: SqlMode,
    completed: bool,
}

/// Where we are among statements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Between,
    Head,
    /// INSERT or REPLACE, before VALUES.
    Insert,
    Values,
    /// The rest of a statement that holds nothing of interest.
    Rest,
    /// The rest of a DELIMITER line, which is not SQL.
    Delimiter,
}

/// Where we are among characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lex {
    Code,
    Quoted(u8),
    Escaped(u8),
    Dash,
    DashDash,
    Slash,
    CommentOpen,
    CommentOpenM,
    Version {
        number: u32,
        digits: u8,
    },
    Line,
    Block,
    BlockStar,
    /// A `*` inside `/*!`.
    CodeStar,
}

/// Of sql_mode, what changes how text is read.
#[derive(Clone, Copy, Default)]
struct SqlMode {
    no_backslash: bool,
    ansi_quotes: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            pos: 0,
            mode: Mode::Between,
            lex: Lex::Code,
            versioned: false,
            version: 0,
            token: 0,
            semicolon: None,
            head: Vec::with_capacity(HEAD_MAX),
            head_start: 0,
            delimiter: b";".to_vec(),
            matched: 0,
            depth: 0,
            word: Vec::new(),
            rows: 0,
            table: String::new(),
            comment: Vec::new(),
            block: None,
            line_start: true,
            section: (SectionKind::Header, String::new()),
            sql_mode: SqlMode::default(),
            completed: false,
        }
    }
}

/// What a statement creates, if anything.
pub fn created(statement: &str) -> Option<(ObjectKind, String)> {
    let (mut scanner, mut events) = (Scanner::default(), Vec::new());
    scanner.feed(statement.as_bytes(), &mut events);
    scanner.feed(b";", &mut events);
    events.into_iter().find_map(|event| match event {
        Event::Created { kind, name } => Some((kind, name)),
        _ => None,
    })
}

impl Scanner {
    /// Reads the next chunk and appends what it saw to `events`. The header's section comes with the first byte.
    pub fn feed(&mut self, chunk: &[u8], events: &mut Vec<Event>) {
        if self.pos == 0 && !chunk.is_empty() {
            events.push(Event::Section { kind: SectionKind::Header, name: String::new(), start: 0 });
        }
        let mut at = 0;
        while at < chunk.len() {
            let skipped = self.skip(&chunk[at..]);
            if !chunk[at..at + skipped].trim_ascii().is_empty() {
                self.semicolon = None;
            }
            at += skipped;
            self.pos += skipped as u64;
            if let Some(&byte) = chunk.get(at) {
                self.step(byte, events);
                at += 1;
                self.pos += 1;
            }
        }
    }

    /// No later event will have a `start` before this offset: up to here, the stream may be passed on.
    pub fn settled(&self) -> u64 {
        let settled = match self.mode {
            Mode::Head => self.head_start,
            Mode::Between => match (self.block, self.lex) {
                (Some(block), _) => block,
                (None, Lex::Code | Lex::Line | Lex::Block | Lex::BlockStar) => self.pos,
                (None, _) => self.token,
            },
            _ => self.pos,
        };
        self.semicolon.map_or(settled, |start| start.min(settled))
    }

    /// Whether the stream may end here: no statement has begun and not ended.
    pub fn is_between(&self) -> bool {
        self.mode == Mode::Between && matches!(self.lex, Lex::Code | Lex::Line)
    }

    /// Offset of the next byte.
    pub fn position(&self) -> u64 {
        self.pos
    }

    /// Whether "-- Dump completed" has been the last line, with nothing but white space after it.
    pub fn is_complete(&self) -> bool {
        self.completed && self.mode == Mode::Between && self.lex == Lex::Code
    }

    /// How many bytes need no closer look.
    fn skip(&mut self, rest: &[u8]) -> usize {
        let len = rest.len();
        match (self.lex, self.mode) {
            (_, Mode::Delimiter) => 0,
            (Lex::Quoted(quote), Mode::Rest | Mode::Values) => memchr2(quote, b'\\', rest).unwrap_or(len),
            (Lex::Line, mode) if mode != Mode::Between => memchr(b'\n', rest).unwrap_or(len),
            (Lex::Block, mode) if mode != Mode::Between => memchr(b'*', rest).unwrap_or(len),
            (Lex::Code, Mode::Values) if self.matched == 0 && !self.versioned && self.delimiter == b";" => self.skip_rows(rest),
            (Lex::Code, Mode::Rest) if self.matched == 0 => {
                let delimiter = self.delimiter[0];
                rest.iter().position(|&b| b == delimiter || matches!(b, b'\'' | b'"' | b'`' | b'-' | b'#' | b'/' | b'*')).unwrap_or(len)
            }
            _ => 0,
        }
    }

    fn step(&mut self, byte: u8, events: &mut Vec<Event>) {
        if self.mode == Mode::Delimiter {
            return self.delimiter_byte(byte);
        }
        match self.lex {
            Lex::Code => self.code(byte, events),
            Lex::Quoted(quote) => {
                self.plain(byte, events);
                let escapes = match quote {
                    b'`' => false,
                    b'"' => !self.sql_mode.no_backslash && !self.sql_mode.ansi_quotes,
                    _ => !self.sql_mode.no_backslash,
                };
                // A doubled quote ends the string and begins another, which comes to the same.
                match byte {
                    b'\\' if escapes => self.lex = Lex::Escaped(quote),
                    byte if byte == quote => self.lex = Lex::Code,
                    _ => {}
                }
            }
            Lex::Escaped(quote) => {
                self.plain(byte, events);
                self.lex = Lex::Quoted(quote);
            }
            Lex::Dash if byte == b'-' => self.lex = Lex::DashDash,
            Lex::DashDash if byte.is_ascii_whitespace() || byte.is_ascii_control() => {
                self.open_comment(Lex::Line, b"--");
                self.comment_byte(byte, events);
            }
            Lex::DashDash if byte == b'-' => {
                self.plain(b'-', events);
                self.token += 1;
            }
            Lex::Slash if byte == b'*' => self.lex = Lex::CommentOpen,
            Lex::Dash | Lex::DashDash | Lex::Slash => {
                let pending: &[u8] = match self.lex {
                    Lex::Dash => b"-",
                    Lex::DashDash => b"--",
                    _ => b"/",
                };
                self.lex = Lex::Code;
                pending.iter().for_each(|&byte| self.plain(byte, events));
                self.code(byte, events);
            }
            Lex::CommentOpen | Lex::CommentOpenM if byte == b'!' => self.lex = Lex::Version { number: 0, digits: 0 },
            Lex::CommentOpen if byte == b'M' => self.lex = Lex::CommentOpenM,
            Lex::CommentOpen | Lex::CommentOpenM => {
                self.open_comment(Lex::Block, b"");
                self.comment_byte(byte, events);
            }
            Lex::Version { number, digits } if byte.is_ascii_digit() && digits < 6 => {
                self.lex = Lex::Version { number: number * 10 + u32::from(byte - b'0'), digits: digits + 1 };
            }
            // A version that no server will ever have makes a comment: `/*M!999999\- enable the sandbox mode */`.
            Lex::Version { number: 99_999 | 999_999, .. } => {
                self.open_comment(Lex::Block, b"");
                self.comment_byte(byte, events);
            }
            Lex::Version { number, .. } => {
                if self.mode == Mode::Between {
                    self.begin_statement(self.token, number);
                }
                (self.versioned, self.lex) = (true, Lex::Code);
                self.plain(b' ', events);
                self.code(byte, events);
            }
            Lex::CodeStar => {
                self.lex = Lex::Code;
                let semicolon = self.semicolon.take();
                if byte == b'/' {
                    if let Some(start) = semicolon {
                        events.push(Event::StraySemicolon { start });
                    }
                    self.versioned = false;
                    self.plain(b' ', events);
                } else {
                    self.plain(b'*', events);
                    self.code(byte, events);
                }
            }
            Lex::Line | Lex::Block | Lex::BlockStar => self.comment_byte(byte, events),
        }
    }

    /// A byte outside strings and comments.
    fn code(&mut self, byte: u8, events: &mut Vec<Event>) {
        if !self.versioned {
            if byte == self.delimiter[self.matched] {
                self.matched += 1;
                if self.matched == self.delimiter.len() {
                    self.end_statement(events);
                }
                return;
            }
            if self.matched > 0 {
                // Not the delimiter after all. One that begins like a comment (`//`) must not hide comments.
                let matched = std::mem::take(&mut self.matched);
                if matched == 1 && matches!(self.delimiter[0], b'/' | b'-') {
                    self.lex = if self.delimiter[0] == b'/' { Lex::Slash } else { Lex::Dash };
                    self.token = self.pos - 1;
                    return self.step(byte, events);
                }
                for at in 0..matched {
                    self.plain(self.delimiter[at], events);
                }
                return self.code(byte, events);
            }
        }
        match byte {
            b';' if self.versioned && self.delimiter.len() > 1 => self.semicolon = Some(self.pos),
            b'*' | b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => self.semicolon = None,
        }
        match byte {
            b'-' | b'/' | b'#' => self.token = self.pos,
            _ => {}
        }
        match byte {
            b'-' => self.lex = Lex::Dash,
            b'/' => self.lex = Lex::Slash,
            b'#' => self.open_comment(Lex::Line, b"#"),
            b'*' if self.versioned => self.lex = Lex::CodeStar,
            b'\'' | b'"' | b'`' => {
                self.plain(byte, events);
                self.lex = Lex::Quoted(byte);
            }
            _ => self.plain(byte, events),
        }
    }

    /// A byte of a statement, or white space between two.
    fn plain(&mut self, byte: u8, events: &mut Vec<Event>) {
        let code = self.lex == Lex::Code;
        match self.mode {
            Mode::Between if byte.is_ascii_whitespace() => {
                if byte == b'\n' {
                    if self.line_start {
                        self.block = None;
                    }
                    self.line_start = true;
                }
            }
            Mode::Between => {
                self.begin_statement(self.pos, 0);
                self.head.push(byte);
            }
            Mode::Head => {
                if code && !byte.is_ascii_alphanumeric() && byte != b'_' {
                    let word = self.head.trim_ascii_start();
                    if word.eq_ignore_ascii_case(b"INSERT") || word.eq_ignore_ascii_case(b"REPLACE") {
                        self.mode = Mode::Insert;
                    } else if word.eq_ignore_ascii_case(b"DELIMITER") && !self.versioned {
                        self.mode = Mode::Delimiter;
                        self.head.clear();
                        return;
                    }
                }
                self.head.push(byte);
                if self.mode == Mode::Head && self.head.len() == HEAD_MAX {
                    self.understand(events);
                    self.mode = Mode::Rest;
                }
            }
            Mode::Insert => {
                if self.head.len() < HEAD_MAX {
                    self.head.push(byte);
                }
                if !code {
                    return;
                }
                if byte.is_ascii_alphanumeric() || byte == b'_' {
                    return self.word.push(byte);
                }
                let values = self.depth == 0 && (self.word.eq_ignore_ascii_case(b"VALUES") || self.word.eq_ignore_ascii_case(b"VALUE"));
                self.word.clear();
                if values {
                    self.table = head::insert_table(&self.head);
                    self.mode = Mode::Values;
                    return self.plain(byte, events);
                }
                self.parenthesis(byte);
            }
            Mode::Values if code => {
                if byte == b'(' && self.depth == 0 {
                    self.rows += 1;
                }
                if self.depth == 0 && byte.is_ascii_alphabetic() {
                    // ON DUPLICATE KEY UPDATE: what follows may hold VALUES(...) again.
                    self.mode = Mode::Rest;
                }
                self.parenthesis(byte);
            }
            Mode::Values | Mode::Rest | Mode::Delimiter => {}
        }
    }

    fn parenthesis(&mut self, byte: u8) {
        match byte {
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn begin_statement(&mut self, start: u64, version: u32) {
        (self.mode, self.head_start, self.version) = (Mode::Head, start, version);
        (self.block, self.completed, self.line_start) = (None, false, false);
    }

    fn end_statement(&mut self, events: &mut Vec<Event>) {
        if self.mode == Mode::Head {
            self.understand(events);
        }
        if self.mode != Mode::Between {
            events.push(Event::Statement { start: self.head_start, end: self.pos + 1 - self.delimiter.len() as u64 });
        }
        if self.rows > 0 {
            events.push(Event::Rows { table: self.table.clone(), rows: self.rows });
        }
        (self.mode, self.matched, self.depth, self.rows) = (Mode::Between, 0, 0, 0);
        (self.block, self.line_start, self.completed) = (None, false, false);
        self.head.clear();
        self.word.clear();
    }

    /// Acts on what the statement's beginning says.
    fn understand(&mut self, events: &mut Vec<Event>) {
        let (start, versioned) = (self.head_start, self.version > 0);
        match head::meaning(&self.head, self.version) {
            Meaning::Created(kind, name) => {
                match kind {
                    ObjectKind::Table if self.section != (SectionKind::Table, name.clone()) => {
                        self.begin_section(SectionKind::Table, name.clone(), start, events)
                    }
                    ObjectKind::Trigger if matches!(self.section.0, SectionKind::Table | SectionKind::Data) => {
                        self.begin_section(SectionKind::Triggers, self.section.1.clone(), start, events);
                    }
                    _ => {}
                }
                events.push(Event::Created { kind, name });
            }
            Meaning::TriggersBegin if matches!(self.section.0, SectionKind::Table | SectionKind::Data) => {
                self.begin_section(SectionKind::Triggers, self.section.1.clone(), start, events);
            }
            Meaning::SqlMode(mode) => {
                let has =
                    |word: &str| mode.to_uppercase().split(',').any(|w| w.trim() == word || w.trim() == "ANSI" && word == "ANSI_QUOTES");
                self.sql_mode = SqlMode { no_backslash: has("NO_BACKSLASH_ESCAPES"), ansi_quotes: has("ANSI_QUOTES") };
            }
            Meaning::SessionBinlog { restores } => {
                if restores {
                    self.begin_trailer(start, events);
                }
                if !versioned {
                    events.push(Event::SessionBinlog { start });
                }
            }
            Meaning::TrailerBegins => self.begin_trailer(start, events),
            Meaning::Position(file, pos) => events.push(Event::Position { file, pos }),
            Meaning::TriggersBegin | Meaning::Nothing => {}
        }
    }

    fn begin_section(&mut self, kind: SectionKind, name: String, start: u64, events: &mut Vec<Event>) {
        self.section = (kind, name.clone());
        events.push(Event::Section { kind, name, start });
    }

    fn begin_trailer(&mut self, start: u64, events: &mut Vec<Event>) {
        if self.section.0 != SectionKind::Trailer {
            self.begin_section(SectionKind::Trailer, String::new(), start, events);
        }
    }

    fn delimiter_byte(&mut self, byte: u8) {
        if byte != b'\n' {
            return self.head.push(byte);
        }
        if let Some(delimiter) = self.head.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()) {
            self.delimiter = delimiter.to_vec();
        }
        (self.mode, self.line_start) = (Mode::Between, true);
        self.head.clear();
    }
}

#[cfg(test)]
mod tests;
