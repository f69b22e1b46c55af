//! Kinds for the tests of the queue and for its bench: in debug builds, and in release builds with the feature `test-kinds`.

use crate::{
    component::Component,
    exclusive::Exclusive,
    failpoint,
    job::{Context, Done, Field, Job, Policy, Shape, Tell},
};
use anyhow::{anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::{path::PathBuf, time::Duration};

/// Writes a file and, in its final transaction, a row of `test_effects`: a repeatable kind's one visible effect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestRepeatable {
    /// Where its file goes; none: no file.
    pub dir: Option<PathBuf>,
    /// How long it works, in milliseconds.
    pub millis: u64,
    /// What it needs for itself.
    pub resources: Vec<Component>,
    /// Fails this many times first.
    pub failures: u32,
}

impl Job for TestRepeatable {
    const KIND: &'static str = "test_repeatable";
    const DESCRIPTION: &'static str = "For tests: a file and a row";
    const POLICY: Policy =
        Policy { max_attempts: 20, retry_delay: Duration::from_millis(100), notify: Tell::Never, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[
        Field::optional("dir", Shape::Text),
        Field::optional("millis", Shape::Integer),
        Field::optional("resources", Shape::Components),
        Field::optional("failures", Shape::Integer).lowering_safety(),
    ];

    fn resources(&self) -> Vec<Component> {
        self.resources.clone()
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        work(context, self.millis / 2).await?;
        failpoint::hit(failpoint::MID_WORK).await;
        ensure!(context.attempt > self.failures, "failing on purpose, {} of {}", context.attempt, self.failures);
        if let Some(dir) = &self.dir {
            // What a late attempt leaves bears its fence.
            std::fs::write(dir.join(format!("{}.{}", context.job_id, context.fence)), "done")?;
        }
        work(context, self.millis / 2).await?;
        let (job, fence) = (context.job_id, context.fence);
        Ok(Done {
            writes: Some(Box::new(move |connection| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO test_effects (job_id, fence) VALUES (?, ?)").bind(job).bind(fence).execute(connection).await?;
                    Ok(())
                })
            })),
            ..Done::completed(json!({ "fence": fence }))
        })
    }
}

/// Writes numbered rows to the application database, and files, step by step, with no way back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestDestructive {
    /// Where its files go.
    pub dir: PathBuf,
    /// Rows and files to write.
    pub steps: u32,
    /// Pause between two steps, in milliseconds.
    pub millis: u64,
    /// Ignores the order to stop, as work that blocks does: only fence and lock are in its way then.
    pub stubborn: bool,
}

impl Job for TestDestructive {
    const KIND: &'static str = "test_destructive";
    const DESCRIPTION: &'static str = "For tests: rows and files, never twice";
    const POLICY: Policy = Policy { notify: Tell::Never, time_limit: Duration::from_secs(15), ..Policy::at_most_once() };
    const FIELDS: &'static [Field] = &[
        Field::required("dir", Shape::Text),
        Field::optional("steps", Shape::Integer),
        Field::optional("millis", Shape::Integer),
        Field::optional("stubborn", Shape::Boolean),
    ];
    const RESOURCES: &'static [Component] = &[Component::Database];

    fn resources(&self) -> Vec<Component> {
        vec![Component::Database]
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let mut exclusive = Exclusive::acquire(context).await?;
        for step in 0..self.steps {
            if step == self.steps / 2 {
                failpoint::hit(failpoint::MID_WORK).await;
            }
            if self.stubborn {
                std::thread::sleep(Duration::from_millis(self.millis));
            } else {
                work(context, self.millis).await?;
            }
            let sql = format!("INSERT INTO destroyed (job_id, fence, step) VALUES ({}, {}, {step})", context.job_id, context.fence);
            sqlx::query(AssertSqlSafe(sql)).execute(exclusive.connection()).await?;
            std::fs::write(self.dir.join(format!("{}.{}.{step}", context.job_id, context.fence)), "")?;
        }
        Ok(Done::completed(json!({ "steps": self.steps })))
    }
}

/// Does nothing; a second equal one, while one waits, is the same job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestUnique {
    /// The archive to whose node it goes.
    pub archive: Option<String>,
    /// What tells one from another.
    pub word: String,
}

impl Job for TestUnique {
    const KIND: &'static str = "test_unique";
    const DESCRIPTION: &'static str = "For tests: nothing, once";
    const POLICY: Policy = Policy { unique: true, notify: Tell::Never, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[Field::optional("archive", Shape::Archive), Field::optional("word", Shape::Text)];

    async fn run(&self, _: &Context) -> anyhow::Result<Done> {
        Ok(Done::completed(json!({})))
    }
}

/// Does nothing: what is left is the queue's own cost.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestNothing {
    /// Tells one from another.
    pub label: Option<String>,
    /// What it needs for itself.
    pub resources: Vec<Component>,
}

impl Job for TestNothing {
    const KIND: &'static str = "test_nothing";
    const DESCRIPTION: &'static str = "For tests: nothing";
    const POLICY: Policy = Policy { notify: Tell::Never, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[Field::optional("label", Shape::Text), Field::optional("resources", Shape::Components)];

    fn resources(&self) -> Vec<Component> {
        self.resources.clone()
    }

    async fn run(&self, _: &Context) -> anyhow::Result<Done> {
        Ok(Done::completed(json!({})))
    }
}

async fn work(context: &Context, millis: u64) -> anyhow::Result<()> {
    tokio::select! {
        () = context.control.cancel.cancelled() => Err(anyhow!("told to stop")),
        () = tokio::time::sleep(Duration::from_millis(millis)) => Ok(()),
    }
}
