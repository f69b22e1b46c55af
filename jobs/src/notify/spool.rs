//! The workbench's spool: one JSON file per notification, in Heratio's own format.

use super::{deliveries::Outcome, message::Message};
use crate::config::Config;
use chrono::{DateTime, Utc};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// `heratio-backup-{uniqid}.json`, with what PHP's `uniqid` gives at that microsecond: the same name on every attempt.
pub fn file_name(at: DateTime<Utc>) -> String {
    format!("heratio-backup-{:08x}{:05x}.json", at.timestamp(), at.timestamp_subsec_micros())
}

/// Writes the file, whole or not at all.
pub async fn deliver(config: &Config, name: &str, message: &Message, username: &str) -> Outcome {
    let (directory, node, name) = (config.spool_dir.clone(), config.node.clone(), name.to_owned());
    let text = json!({
        "username": username,
        "title": message.title,
        "message": message.summary,
        "eventType": message.event.as_str(),
        "webLink": message.link.as_deref().unwrap_or("/admin/backup"),
    })
    .to_string();
    // A spool on a dead network disk blocks its thread, and only that one.
    let written = tokio::task::spawn_blocking(move || {
        if !directory.is_dir() {
            return Outcome::Off(format!("the directory {} does not exist on node {node}", directory.display()));
        }
        match write(&directory, &name, &text) {
            Ok(()) => Outcome::Delivered(format!("{} on node {node}", directory.join(&name).display())),
            Err(error) => Outcome::Failed(format!("cannot write {} on node {node}: {error}", directory.join(&name).display())),
        }
    })
    .await;
    written.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

/// Dies before the rename: a hidden file that the next attempt writes anew. After it: the next attempt finds the file.
fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = directory.join(name);
    if path.exists() {
        return Ok(());
    }
    let temporary = directory.join(format!(".{name}.partial"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_once() {
        let at = DateTime::from_timestamp(1_795_572_000, 12_345_000).unwrap();
        let name = file_name(at);
        assert_eq!(name, "heratio-backup-6b06412003039.json");
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &name, "first").unwrap();
        write(directory.path(), &name, "second").unwrap();
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [name.as_str()]);
        assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), "first");
    }
}
