//! What people are told: from a job's row or an alert to a subject, a line, facts and lists.

use crate::{
    config::Config,
    health::Alert,
    queue::history::JobRow,
    state::State,
    units::{size, span},
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

/// Longest error in a mail, in characters; all of it is in the job's history.
const ERROR_LENGTH: usize = 500;
/// Longest list in a mail.
const LIST_LENGTH: usize = 50;

/// How a notification is marked, in the workbench's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All is well.
    Success,
    /// Something should be read.
    Warning,
    /// Something must be done.
    Error,
}

impl Event {
    /// The word in the spool file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A notification, ready for every channel.
#[derive(Debug, Clone)]
pub struct Message {
    /// Of the mail.
    pub subject: String,
    /// Of the in-app row and the spool file.
    pub title: String,
    /// One line for the in-app row and the spool file.
    pub summary: String,
    /// `backup_failed`, `alert_disk_nearly_full`: the in-app row's type.
    pub kind: String,
    /// What it is about, `backup_job` or `backup_alert`, and its number: the in-app row's related record.
    pub about: (&'static str, u64),
    /// How it is marked.
    pub event: Event,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Heratio's backup page, where `APP_URL` is known.
    pub link: Option<String>,
    /// First sentence of the mail.
    pub lead: String,
    /// Names and values.
    pub facts: Vec<(&'static str, String)>,
    /// Headings and lines; empty ones are left out.
    pub lists: Vec<(&'static str, Vec<String>)>,
    /// What to do, or where to read more.
    pub next: String,
    /// What the reader should know about this notification itself.
    pub notes: Vec<String>,
}

impl Message {
    /// How a job ended.
    pub fn of_job(job: &JobRow, config: &Config) -> Self {
        let event = match job.state {
            State::Completed => Event::Success,
            State::CompletedWithWarnings => Event::Warning,
            _ => Event::Error,
        };
        let at = job.finished_at.unwrap_or(job.created_at);
        let (backup, what) = (job.kind == "backup", job.kind.replace('_', " "));
        let stamp = local(at, config);
        let (subject, title) = match event {
            Event::Success => (format!("Heratio {what} completed: {stamp}"), format!("Heratio {what} completed")),
            Event::Warning => {
                (format!("Heratio {what} completed: {stamp} (with warnings)"), format!("Heratio {what} completed with warnings"))
            }
            Event::Error => (format!("Heratio {what} FAILED: {stamp}"), format!("Heratio {what} FAILED")),
        };
        let run = if backup { "A Heratio backup run".to_owned() } else { format!("A Heratio {what} job") };
        let lead = match event {
            Event::Success => format!("{run} has completed successfully."),
            Event::Warning => format!("{run} has completed with warnings."),
            Event::Error if backup => {
                format!("{run} has FAILED. No complete artefact set was produced. Please investigate as soon as possible.")
            }
            Event::Error => format!("{run} has FAILED. Please investigate as soon as possible."),
        };
        let result = job.result.as_ref().unwrap_or(&Value::Null);
        let mut errors = texts(result, "errors");
        if errors.is_empty() {
            errors.extend(job.error.clone());
        }
        let show = format!("`enqueue show {}` shows its log and all of its attempts.", job.id);
        let files = files(result);
        let summary = summary(job, event, &files, errors.first().map_or("", |e| e));
        // The first error's next step has a line of its own, outside the list and its cuts.
        let mut next = show;
        if let Some(error) = errors.iter_mut().find(|e| e.contains(". Next: "))
            && let Some((what, step)) = error.split_once(". Next: ")
        {
            next = format!("{}. {next}", cut(step, ERROR_LENGTH).trim_end_matches('.'));
            *error = what.to_owned();
        }
        Self {
            subject,
            title,
            summary,
            kind: format!("{}_{}", job.kind, job.state),
            about: ("backup_job", job.id),
            event,
            at,
            link: link(config),
            lead,
            facts: facts(job, event, &files, at, config),
            next,
            lists: vec![
                (if event == Event::Error { "Partial files" } else { "Files" }, files.iter().map(File::line).collect()),
                ("Errors", errors.iter().map(|e| cut(e, ERROR_LENGTH)).collect()),
                ("Warnings", texts(result, "warnings").iter().map(|w| cut(w, ERROR_LENGTH)).collect()),
            ],
            notes: Vec::new(),
        }
    }

    /// A health alert; `id` is the number of the job that tells it.
    pub fn of_alert(alert: &Alert, id: u64, at: DateTime<Utc>, config: &Config) -> Self {
        let title = format!("Heratio backup ALERT: {}", alert.alert.title());
        let mut facts = moments("Noticed", at, config);
        facts.extend(alert.node.clone().map(|node| ("Node", node)));
        Self {
            subject: format!("{title}: {}", local(at, config)),
            title,
            summary: alert.message.clone(),
            kind: format!("alert_{}", alert.alert.as_str()),
            about: ("backup_alert", id),
            event: Event::Error,
            at,
            link: link(config),
            lead: alert.message.clone(),
            facts,
            lists: Vec::new(),
            next: alert.next.clone(),
            notes: vec!["This is told at most once a day, as long as it lasts.".into()],
        }
    }
}

/// An archive in a job's result.
struct File {
    component: String,
    name: String,
    size: u64,
}

impl File {
    fn line(&self) -> String {
        format!("{}: {} ({})", self.component, self.name, size(self.size))
    }
}

fn files(result: &Value) -> Vec<File> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let files = result["files"].as_array().into_iter().flatten();
    files.map(|f| File { component: text(&f["component"]), name: text(&f["file_name"]), size: f["size"].as_u64().unwrap_or(0) }).collect()
}

/// What the job was asked for; a payload without components means all of a backup's.
fn components(job: &JobRow, files: &[File]) -> Vec<String> {
    let asked = texts(&job.payload, "components");
    if asked.is_empty() { files.iter().map(|f| f.component.clone()).collect() } else { asked }
}

fn summary(job: &JobRow, event: Event, files: &[File], error: &str) -> String {
    let components = components(job, files).join("+");
    let what =
        if job.kind == "backup" { format!("Backup of {components}") } else { format!("Job {} ({})", job.id, job.kind.replace('_', " ")) };
    let took = span(seconds(job).unwrap_or_default());
    match event {
        Event::Error => format!("{what} did not complete: {}", cut(error, 240)),
        _ if job.kind == "backup" => format!("{components} components backed up ({}, {took}).", size(total(files))),
        Event::Warning => format!("{what} completed with warnings in {took}."),
        Event::Success => format!("{what} completed in {took}."),
    }
}

fn facts(job: &JobRow, event: Event, files: &[File], at: DateTime<Utc>, config: &Config) -> Vec<(&'static str, String)> {
    let failed = event == Event::Error;
    let mut facts = vec![("Job", job.id.to_string()), ("Kind", job.kind.clone())];
    facts.extend(job.payload["label"].as_str().map(|label| ("Label", label.to_owned())));
    let components = components(job, files);
    if !components.is_empty() {
        facts.push((if failed { "Requested components" } else { "Components" }, components.join(", ")));
    }
    if job.kind == "backup" {
        facts.push((if failed { "Partial files written" } else { "Files" }, files.len().to_string()));
        facts.push(("Total size", size(total(files))));
    } else {
        facts.extend(scalars(job.result.as_ref()).map(|text| ("Result", text)));
    }
    facts.extend(seconds(job).map(|s| ("Duration", span(s))));
    facts.extend(moments(if failed { "Failed" } else { "Completed" }, at, config));
    facts.extend(job.node.clone().map(|node| ("Node", node)));
    if job.attempt > 1 {
        facts.push(("Attempts", format!("{} of {}", job.attempt, job.max_attempts)));
    }
    facts.push(("Asked for by", format!("{} ({})", job.requested_by, job.requested_from)));
    facts
}

/// Another kind's result on one line: its plain values.
fn scalars(result: Option<&Value>) -> Option<String> {
    let plain = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some(format!("{name}: {}", cut(text, 200))),
        Value::Number(_) | Value::Bool(_) => Some(format!("{name}: {value}")),
        _ => None,
    };
    let all: Vec<String> = result?.as_object()?.iter().filter_map(plain).take(12).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn total(files: &[File]) -> u64 {
    files.iter().map(|f| f.size).sum()
}

fn seconds(job: &JobRow) -> Option<f64> {
    Some((job.finished_at? - job.started_at?).num_milliseconds() as f64 / 1000.0)
}

/// The texts of an array in a JSON object.
fn texts(object: &Value, name: &str) -> Vec<String> {
    let all: Vec<&str> = object[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut shown: Vec<String> = all.iter().take(LIST_LENGTH).map(|t| (*t).to_owned()).collect();
    if all.len() > LIST_LENGTH {
        shown.push(format!("and {} more", all.len() - LIST_LENGTH));
    }
    shown
}

/// A text of at most so many characters, marked where it was cut.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn link(config: &Config) -> Option<String> {
    Some(format!("{}/admin/backup", config.app_url.as_ref()?))
}

/// ISO 8601 with the configured zone's offset.
fn local(at: DateTime<Utc>, config: &Config) -> String {
    at.with_timezone(&config.timezone).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// When, in the configured zone and in UTC.
fn moments(word: &'static str, at: DateTime<Utc>, config: &Config) -> Vec<(&'static str, String)> {
    let utc = at.format("%Y-%m-%d %H:%M:%S").to_string();
    if config.timezone == chrono_tz::UTC {
        return vec![(word, format!("{utc} UTC"))];
    }
    let zoned = at.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S %:z");
    vec![(word, format!("{zoned} ({})", config.timezone)), ("In UTC", utc)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;
    use serde_json::json;

    fn config() -> Config {
        let env = [
            ("BACKUP_DATABASE_URL", "mysql://a@h/c"),
            ("HERATIO_DATABASE_URL", "mysql://a@h/d"),
            ("BACKUP_TIMEZONE", "Africa/Johannesburg"),
            ("APP_URL", "https://heratio.example/"),
        ];
        Config::from_env(&Env::from_pairs(env)).unwrap()
    }

    fn job(kind: &str, state: State, payload: Value, result: Option<Value>, error: Option<&str>) -> JobRow {
        let at = |s: i64| DateTime::from_timestamp(1_795_564_800 + s, 0).unwrap();
        JobRow {
            id: 41,
            kind: kind.into(),
            state,
            requested_by: "johan".into(),
            requested_from: "enqueue on db1".into(),
            created_at: at(0),
            run_at: at(0),
            started_at: Some(at(1)),
            finished_at: Some(at(201)),
            attempt: 1,
            max_attempts: 4,
            node: Some("node1".into()),
            queue: "shared".into(),
            phase: None,
            progress_done: 0,
            progress_total: 0,
            waits_for: None,
            error: error.map(Into::into),
            result,
            payload,
        }
    }

    fn fact<'m>(message: &'m Message, name: &str) -> &'m str {
        message.facts.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }

    #[test]
    fn a_good_backup() {
        let result = json!({ "files": [
            { "component": "database", "file_name": "database_h.sql.gz", "size": 12_000_000 },
            { "component": "uploads", "file_name": "uploads.tar.gz", "size": 300_000 } ], "errors": [], "warnings": [] });
        let message = Message::of_job(
            &job("backup", State::Completed, json!({ "components": ["database", "uploads"], "label": "nightly" }), Some(result), None),
            &config(),
        );
        assert_eq!(message.subject, "Heratio backup completed: 2026-11-25T02:03:21+02:00");
        assert_eq!((message.title.as_str(), message.event.as_str()), ("Heratio backup completed", "success"));
        assert_eq!(message.summary, "database+uploads components backed up (12.3 MB, 3 min 20 s).");
        assert_eq!(fact(&message, "Completed"), "2026-11-25 02:03:21 +02:00 (Africa/Johannesburg)");
        assert_eq!(fact(&message, "In UTC"), "2026-11-25 00:03:21");
        assert_eq!((fact(&message, "Files"), fact(&message, "Total size"), fact(&message, "Label")), ("2", "12.3 MB", "nightly"));
        assert_eq!(
            message.lists[0],
            ("Files", vec!["database: database_h.sql.gz (12.0 MB)".into(), "uploads: uploads.tar.gz (300.0 kB)".into()])
        );
        assert_eq!(message.link.as_deref(), Some("https://heratio.example/admin/backup"));
    }

    #[test]
    fn a_failed_backup_names_the_next_step_and_cuts_long_errors() {
        let error = format!("database: {}. Next: GRANT TRIGGER ON `h`.* TO 'b'@'%'", "x".repeat(900));
        let message = Message::of_job(&job("backup", State::Failed, json!({ "components": ["database"] }), None, Some(&error)), &config());
        assert_eq!(message.subject, "Heratio backup FAILED: 2026-11-25T02:03:21+02:00");
        assert!(message.summary.starts_with("Backup of database did not complete: database: xxx") && message.summary.len() < 300);
        assert_eq!(message.lists[1].1[0].chars().count(), ERROR_LENGTH + 3);
        assert_eq!(message.next, "GRANT TRIGGER ON `h`.* TO 'b'@'%'. `enqueue show 41` shows its log and all of its attempts.");
        assert!(message.lead.contains("No complete artefact set was produced"));
        assert_eq!((fact(&message, "Requested components"), fact(&message, "Partial files written")), ("database", "0"));
    }

    #[test]
    fn other_kinds_and_warnings() {
        let result = json!({ "deleted": 3, "node": "node1", "list": [1], "warnings": ["one is odd"] });
        let message = Message::of_job(&job("restore_table", State::CompletedWithWarnings, json!({}), Some(result), None), &config());
        assert_eq!(message.subject, "Heratio restore table completed: 2026-11-25T02:03:21+02:00 (with warnings)");
        assert_eq!((message.title.as_str(), message.event.as_str()), ("Heratio restore table completed with warnings", "warning"));
        assert_eq!(message.summary, "Job 41 (restore table) completed with warnings in 3 min 20 s.");
        assert_eq!(fact(&message, "Result"), "deleted: 3; node: node1");
        assert_eq!(message.lists[2], ("Warnings", vec!["one is odd".into()]));
        let failed = Message::of_job(&job("restore", State::Failed, json!({}), None, Some("its worker was lost")), &config());
        assert_eq!(failed.subject, "Heratio restore FAILED: 2026-11-25T02:03:21+02:00");
        assert_eq!(failed.summary, "Job 41 (restore) did not complete: its worker was lost");
    }

    #[test]
    fn long_lists_and_texts_are_cut_between_characters() {
        let many: Vec<String> = (0..60).map(|i| format!("warning {i}")).collect();
        let shown = texts(&json!({ "warnings": many }), "warnings");
        assert_eq!((shown.len(), shown.last().unwrap().as_str()), (LIST_LENGTH + 1, "and 10 more"));
        assert_eq!((cut("наука", 3), cut("abc", 3)), ("нау...".into(), "abc".into()));
    }
}
