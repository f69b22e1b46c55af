//! What an archive says about itself: JSON inside the archive, and beside it off-site.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The version of the manifest that this program writes.
pub const FORMAT: u32 = 1;

/// The manifest stored inside every archive, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// `database`, `uploads`, `packages` or `framework`.
    pub component: String,
    /// When the archive's content was fixed (the snapshot, for a database), UTC.
    pub taken_at: Option<DateTime<Utc>>,
    /// Size of the uncompressed stream in bytes.
    pub raw_size: u64,
    /// SHA-256 of the uncompressed stream, lower-case hex.
    pub raw_sha256: String,
    /// Parts of the stream that can be read alone, in stream order.
    pub sections: Vec<Section>,
    /// Gzip members in order: (uncompressed bytes, compressed bytes).
    pub members: Vec<(u64, u64)>,
    /// Facts about a database archive.
    pub database: Option<DatabaseFacts>,
    /// Facts about a file archive.
    pub files: Option<FileFacts>,
    /// What a person should know: files that vanished while read, sockets skipped.
    pub warnings: Vec<String>,
}

/// A part of the uncompressed stream that starts at a member's start, or, if a `file`, at most 1 MiB of small files after one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// `table`, `view`, `header`, ... or `file` for members of a tar.
    pub kind: String,
    /// Object name or path.
    pub name: String,
    /// First byte in the uncompressed stream.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Rows, for tables: of the whole table, also where its rows are in several sections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Checksum of those rows, 16 hexadecimal digits (see [`crate::checksum`]); none where the dump tool was not our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// Facts about a database archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// The schema dumped.
    pub schema: String,
    /// `mariadb` or `mysql`.
    pub flavour: String,
    /// The server's `@@version`.
    pub server_version: String,
    /// The dump tool and its version.
    pub tool: String,
    /// Where in the binary log the snapshot stands; none when the server writes no binary log.
    pub coordinates: Option<Coordinates>,
    /// Objects in the dump.
    pub tables: u64,
    /// See `tables`.
    pub views: u64,
    /// See `tables`.
    pub triggers: u64,
    /// Procedures and functions.
    pub routines: u64,
    /// See `tables`.
    pub events: u64,
}

/// Binary log coordinates of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    /// Log file name, without directory.
    pub binlog_file: String,
    /// Byte position in it: the first event after the snapshot.
    pub binlog_pos: u64,
    /// GTIDs executed before the snapshot, in the flavour's own notation; empty when GTIDs are off.
    pub gtid_set: String,
    /// `ROW`, `STATEMENT` or `MIXED`, as the variable said at the snapshot.
    pub binlog_format: String,
    /// MySQL: `@@server_uuid`; MariaDB: the UUID that `worker migrate` stored in `heratio_bk_meta`.
    pub server_uuid: String,
    /// `@@server_id`.
    pub server_id: u32,
}

/// Facts about a file archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Name of the top directory inside the tar.
    pub top: String,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of regular files' content.
    pub bytes: u64,
    /// Files and directories that could not be read, or not to the end; the warnings name them.
    #[serde(default)]
    pub unreadable: u64,
}
