//! Comments at top level, in which the dump tools say what they are doing.

use super::{BLOCK_MAX, COMMENT_MAX, Event, Lex, Mode, Scanner, SectionKind, head};

impl Scanner {
    /// The comment's opening characters have been read; those of a line are kept with it.
    pub(super) fn open_comment(&mut self, lex: Lex, opening: &[u8]) {
        self.lex = lex;
        self.comment.clear();
        if self.mode == Mode::Between {
            self.completed = false;
            match lex {
                Lex::Line if self.block.is_some_and(|block| self.pos - block < BLOCK_MAX) => {}
                Lex::Line => self.block = Some(self.token),
                _ => self.block = None,
            }
            self.comment.extend_from_slice(opening);
        }
    }

    pub(super) fn comment_byte(&mut self, byte: u8, events: &mut Vec<Event>) {
        match (self.lex, byte) {
            (Lex::Line, b'\n') | (Lex::BlockStar, b'/') => {
                let lex = std::mem::replace(&mut self.lex, Lex::Code);
                if self.mode != Mode::Between {
                    return self.plain(b' ', events);
                }
                let comment = std::mem::take(&mut self.comment);
                match lex {
                    Lex::Line => self.comment_line(&comment, events),
                    _ => self.comment_block(&comment, events),
                }
                self.line_start = lex == Lex::Line;
                return;
            }
            (Lex::Block | Lex::BlockStar, b'*') => self.lex = Lex::BlockStar,
            (Lex::BlockStar, _) => self.lex = Lex::Block,
            _ => {}
        }
        if self.mode == Mode::Between {
            if self.comment.len() < COMMENT_MAX {
                self.comment.push(byte);
            }
            // A heading is short: what is longer need not be held back.
            if self.block.is_some_and(|block| self.pos - block > BLOCK_MAX) {
                self.block = None;
            }
        }
    }

    fn comment_line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let line = String::from_utf8_lossy(line);
        let Some(line) = line.strip_prefix("-- ").map(str::trim_end) else { return };
        if line.starts_with("Dump completed") {
            self.completed = true;
        } else if let Some((kind, name)) = head::heading(line) {
            let start = self.block.take().unwrap_or(self.pos + 1);
            match kind {
                SectionKind::Trailer => self.begin_trailer(start, events),
                _ => self.begin_section(kind, name, start, events),
            }
        } else if let Some((file, pos)) = head::position(line.as_bytes()) {
            events.push(Event::Position { file, pos });
        } else if let Some(set) = head::gtid_slave_pos(line) {
            events.push(Event::Gtids { set, at_position: true });
        }
    }

    fn comment_block(&mut self, comment: &[u8], events: &mut Vec<Event>) {
        if let Some(set) = head::gtid_purged(comment) {
            events.push(Event::Gtids { set, at_position: self.section.0 == SectionKind::Header });
        }
    }
}
