//! What the scanner reports.

/// What the scanner saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part of the dump begins; the one before it ends there.
    Section {
        /// What it holds.
        kind: SectionKind,
        /// The table's or view's name (of triggers: their table's), or the schema's; empty for header and trailer.
        name: String,
        /// Its first byte, counted from the dump's start.
        start: u64,
    },
    /// A statement creates an object.
    Created {
        /// What it is.
        kind: ObjectKind,
        /// Its name, without quotes.
        name: String,
    },
    /// A statement ended.
    Statement {
        /// Its first byte, counted from the dump's start; comments before it do not belong to it.
        start: u64,
        /// One past its last byte, its delimiter left out.
        end: u64,
    },
    /// A statement inserts rows.
    Rows {
        /// The table's name, without quotes.
        table: String,
        /// How many.
        rows: u64,
    },
    /// The binary log position that the dump says it was taken at.
    Position {
        /// Log file name.
        file: String,
        /// Byte position.
        pos: u64,
    },
    /// The GTIDs that the dump says it was taken at, in the flavour's notation.
    Gtids {
        /// The set; may be empty.
        set: String,
        /// Taken with the position. MySQL 5.7's mysqldump wrote the set of a later moment after the tables.
        at_position: bool,
    },
    /// A line that turns the restoring session's binary log off or on; it begins with the word SET.
    SessionBinlog {
        /// Its first byte, counted from the dump's start.
        start: u64,
    },
    /// A `;` that ends a trigger's or event's body inside `/*! */`, where no server can read it. A MySQL server keeps it
    /// with the body when the object came in one call with other statements (as PHP's installers send them), and
    /// mysqldump 9.7 writes what the server keeps: the dump does not load (error 1064).
    StraySemicolon {
        /// Its offset, counted from the dump's start.
        start: u64,
    },
}

/// A part of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Session settings.
    Header,
    /// A table's definition.
    Table,
    /// A table's rows.
    Data,
    /// A table's triggers.
    Triggers,
    /// MariaDB's sequence.
    Sequence,
    /// A view with its columns only, for other views to refer to.
    Placeholder,
    /// The schema's events.
    Events,
    /// The schema's procedures, functions and packages.
    Routines,
    /// A view.
    View,
    /// What restores the session settings.
    Trailer,
}

/// What CREATE can create in a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A table.
    Table,
    /// MariaDB's sequence.
    Sequence,
    /// A view.
    View,
    /// A trigger.
    Trigger,
    /// A stored procedure.
    Procedure,
    /// A stored function.
    Function,
    /// MariaDB's package.
    Package,
    /// Its body.
    PackageBody,
    /// An event.
    Event,
}

impl ObjectKind {
    /// Its name in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Sequence => "sequence",
            Self::View => "view",
            Self::Trigger => "trigger",
            Self::Procedure => "procedure",
            Self::Function => "function",
            Self::Package => "package",
            Self::PackageBody => "package body",
            Self::Event => "event",
        }
    }
}

impl SectionKind {
    /// Its name in manifests.
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Table => "table",
            Self::Data => "data",
            Self::Triggers => "triggers",
            Self::Sequence => "sequence",
            Self::Placeholder => "placeholder",
            Self::Events => "events",
            Self::Routines => "routines",
            Self::View => "view",
            Self::Trailer => "trailer",
        }
    }
}
