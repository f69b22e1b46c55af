//! What a job kind is: a payload, a policy, and a story told in [`Job::run`].

use crate::{component::Component, config::Config, queue::NewJob, state::State};
use engine::control::Control;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{MySqlConnection, MySqlPool};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A future that may cross threads, as the register's function pointers return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kind of job. The type is its payload: plain data, JSON in the queue, no secret in it.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The word used everywhere: `backup`.
    const KIND: &'static str;
    /// One line for people.
    const DESCRIPTION: &'static str;
    /// How often, how soon again, how long.
    const POLICY: Policy;
    /// The payload's fields, for the SQL procedures: what is not listed here, they refuse.
    const FIELDS: &'static [Field] = &[];
    /// What a job from the SQL procedures takes for itself when its payload names no components.
    const RESOURCES: &'static [Component] = &[];

    /// What this job needs for itself while it runs.
    fn resources(&self) -> Vec<Component> {
        Vec::new()
    }

    /// Refuses what no run could do, before the job exists. The text names the field and the next step.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Does the work. See [`give_up`] and [`snooze`] for errors that are not tried again or not counted.
    fn run(&self, context: &Context) -> impl Future<Output = anyhow::Result<Done>> + Send;
}

/// How a kind may be run.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Destructive kinds run at most once: if their worker dies they are `failed`, and only a person starts them again.
    pub at_most_once: bool,
    /// Attempts before a repeatable job is `failed`.
    pub max_attempts: u32,
    /// Delay before the second attempt; doubled for each further one, at most an hour.
    pub retry_delay: Duration,
    /// Longest run of one attempt.
    pub time_limit: Duration,
    /// Lower starts first.
    pub priority: u8,
    /// A second job with the same payload, on the same queue, while one waits untouched, is the same job.
    pub unique: bool,
    /// Which of its ends people are told of.
    pub notify: Tell,
}

/// Which ends of a kind's jobs people are told of. Cancelled ones never: whoever cancelled it has the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// All; the setting `backup_notify_on_success` may still silence the good ones.
    Always,
    /// Failures and warnings: for kinds that run every hour.
    Trouble,
    /// None.
    Never,
}

impl Policy {
    /// Safe to run again: four attempts, the first retry after 30 s, two days each; people are told of trouble only.
    pub const fn repeatable() -> Self {
        Self {
            at_most_once: false,
            max_attempts: 4,
            retry_delay: Duration::from_secs(30),
            time_limit: Duration::from_secs(2 * 24 * 3600),
            priority: 50,
            unique: false,
            notify: Tell::Trouble,
        }
    }

    /// Never started twice; before repeatable ones in the line; people are told of every end.
    pub const fn at_most_once() -> Self {
        Self { at_most_once: true, max_attempts: 1, priority: 10, notify: Tell::Always, ..Self::repeatable() }
    }
}

/// A field of a payload, as far as SQL can check it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What its value must be.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// Whether setting it lowers safety, so that it needs the right to restore.
    pub lowers_safety: bool,
}

/// What a field's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A list of components, at least one; the job takes them for itself.
    Components,
    /// An archive's file name: the job reads that file, so it goes to the node whose disk holds it.
    Archive,
}

impl Shape {
    /// The word in `kind_fields`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Components => "components",
            Self::Archive => "archive",
        }
    }
}

impl Field {
    /// A field that may be left out.
    pub const fn optional(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, required: false, lowers_safety: false }
    }

    /// A field that must be there.
    pub const fn required(name: &'static str, shape: Shape) -> Self {
        Self { required: true, ..Self::optional(name, shape) }
    }

    /// A field that only who may restore may set.
    #[must_use]
    pub const fn lowering_safety(self) -> Self {
        Self { lowers_safety: true, ..self }
    }
}

/// What a job has at hand while it runs.
pub struct Context {
    /// Configuration, read once at start.
    pub config: Arc<Config>,
    /// Connections to the control schema, apart from the queue's own.
    pub pool: MySqlPool,
    /// The job's number.
    pub job_id: u64,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Whether another attempt follows if this one fails.
    pub is_last_attempt: bool,
    /// The claim's number; every write to the catalog carries it.
    pub fence: u64,
    /// Who asked for the job.
    pub requested_by: String,
    /// Cancelled when the work must stop; takes progress.
    pub control: Control,
    /// Lines for `job_log`.
    pub log: JobLog,
}

/// Lines that a job says; written to `job_log` within a second or two.
#[derive(Clone, Default)]
pub struct JobLog(Arc<Mutex<Vec<(&'static str, String)>>>);

impl JobLog {
    /// Says what goes on.
    pub fn info(&self, message: impl Into<String>) {
        self.push("info", message.into());
    }

    /// Says what a person should look at although the job goes on.
    pub fn warn(&self, message: impl Into<String>) {
        self.push("warn", message.into());
    }

    fn push(&self, level: &'static str, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((level, message));
    }

    /// Takes the lines said since the last call, as (level, message).
    pub fn take(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back lines that could not be written, before newer ones.
    pub fn put_back(&self, mut lines: Vec<(&'static str, String)>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.append(&mut held);
        *held = lines;
    }
}

/// Catalog writes of a job's end. They run in the final transaction, which may be tried several times, so they
/// may only write to MySQL; a fence that no longer holds keeps them from being committed.
pub type CatalogWrites = Box<dyn for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<()>> + Send + Sync>;

/// What came of a job.
pub struct Done {
    /// [`State::Completed`], [`State::CompletedWithWarnings`], or [`State::Failed`] when there is a result to keep as well.
    pub state: State,
    /// For people and scripts; an object.
    pub result: serde_json::Value,
    /// Why, when the state is not `completed`.
    pub error: Option<String>,
    /// Written in the final transaction.
    pub writes: Option<CatalogWrites>,
    /// Enqueued in the final transaction.
    pub follow_ups: Vec<NewJob>,
}

impl Done {
    /// Completed, with a result.
    pub fn completed(result: serde_json::Value) -> Self {
        Self { state: State::Completed, result, error: None, writes: None, follow_ups: Vec::new() }
    }

    /// Completed, and if there are any warnings, with warnings; the result names them.
    pub fn with_warnings(result: serde_json::Value, warnings: &[String]) -> Self {
        let state = if warnings.is_empty() { State::Completed } else { State::CompletedWithWarnings };
        Self { state, ..Self::completed(result) }
    }
}

/// An error that another attempt would meet again.
#[derive(Debug)]
pub struct GiveUp;

impl std::fmt::Display for GiveUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not tried again")
    }
}

/// Marks an error as one that another attempt would meet again: the job becomes `failed` at once.
pub fn give_up(error: impl Into<anyhow::Error>) -> anyhow::Error {
    error.into().context(GiveUp)
}

/// Puts the job back for a while without counting the attempt.
#[derive(Debug)]
pub struct Snooze(pub Duration);

impl std::fmt::Display for Snooze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not now; again in {} s", self.0.as_secs())
    }
}

/// Puts the job back for `delay` without counting the attempt; `why` is what it waits for.
pub fn snooze(delay: Duration, why: impl Into<anyhow::Error>) -> anyhow::Error {
    why.into().context(Snooze(delay))
}

/// An error's chain on one line, without our own marks and without a source's text that its error repeats, and
/// then the next step where the engine knows one.
pub fn explain(error: &anyhow::Error) -> String {
    let mark = GiveUp.to_string();
    let mut texts: Vec<String> = Vec::new();
    for text in error.chain().map(ToString::to_string) {
        if text != mark && !texts.last().is_some_and(|previous| previous.ends_with(&text)) {
            texts.push(text);
        }
    }
    let mut text = texts.join(": ");
    if let Some(hint) = hint(error) {
        text.push_str(". Next: ");
        text.push_str(&hint);
    }
    text
}

/// The next step that the first engine error in the chain names.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|e| {
        let known = [
            e.downcast_ref::<engine::archive::ArchiveError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::files::FilesError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::files::extract::ExtractError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::files::swap::SwapError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::paths::PathsError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::server::ServerError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::dump::DumpError>().and_then(|e| e.hint()),
            e.downcast_ref::<engine::verify::VerifyError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::foreign::ForeignError>().and_then(|e| e.hint()).map(Into::into),
            e.downcast_ref::<engine::load::LoadError>().and_then(|e| e.hint()).map(Into::into),
        ];
        known.into_iter().flatten().next()
    })
}
