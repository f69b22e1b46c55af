//! What a notification has reached so far: all SQL on `notification_deliveries`.

use crate::job::Context;
use serde_json::json;
use sqlx::{MySqlConnection, Row};
use std::time::Duration;

/// What came of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the server's words, or who was told.
    Delivered(String),
    /// Refused for good; why.
    Refused(String),
    /// Not now; why.
    Failed(String),
    /// This channel is off; why.
    Off(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Off(_) => "off",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Delivered(text) | Self::Refused(text) | Self::Failed(text) | Self::Off(text) => text,
        }
    }
}

/// The deliveries of one notification: those of earlier attempts, and this one's.
pub struct Deliveries<'c> {
    context: &'c Context,
    all: Vec<(String, String, Outcome)>,
}

impl<'c> Deliveries<'c> {
    /// What earlier attempts reached.
    pub async fn load(connection: &mut MySqlConnection, context: &'c Context) -> sqlx::Result<Self> {
        let rows = sqlx::query("SELECT channel, recipient, outcome, detail FROM notification_deliveries WHERE job_id = ? ORDER BY at")
            .bind(context.job_id)
            .fetch_all(connection)
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let detail = row.try_get::<Option<String>, _>("detail")?.unwrap_or_default();
            let refused = row.try_get::<String, _>("outcome")? == "refused";
            let outcome = if refused { Outcome::Refused(detail) } else { Outcome::Delivered(detail) };
            all.push((row.try_get("channel")?, row.try_get("recipient")?, outcome));
        }
        Ok(Self { context, all })
    }

    /// Whether this delivery has still to be made.
    pub fn wants(&self, channel: &str, recipient: &str) -> bool {
        !self.all.iter().any(|(c, r, _)| c == channel && r == recipient)
    }

    /// Remembers what came of a delivery; a channel that is off or failed is looked at again by the next attempt.
    ///
    /// Without the fence that other writes carry: a mail that is out is out, whoever has the job by now.
    pub async fn record(&mut self, channel: &str, recipient: &str, outcome: Outcome) {
        if matches!(outcome, Outcome::Delivered(_) | Outcome::Refused(_)) {
            // A row that cannot be written is a mail sent twice: worth a few tries.
            for _ in 0..5 {
                match self.write(channel, recipient, &outcome).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(job.id = self.context.job_id, channel, %error, "cannot note a delivery yet"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        self.note(channel, recipient, outcome);
    }

    async fn write(&self, channel: &str, recipient: &str, outcome: &Outcome) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO notification_deliveries (job_id, channel, recipient, outcome, detail) VALUES (?, ?, ?, ?, ?)
             ON DUPLICATE KEY UPDATE outcome = ?, detail = ?, at = UTC_TIMESTAMP(6)",
        )
        .bind(self.context.job_id)
        .bind(channel)
        .bind(recipient)
        .bind(outcome.word())
        .bind(crate::queue::text(outcome.detail()))
        .bind(outcome.word())
        .bind(crate::queue::text(outcome.detail()))
        .execute(&self.context.pool)
        .await?;
        Ok(())
    }

    /// Keeps it for the result alone.
    pub fn note(&mut self, channel: &str, recipient: &str, outcome: Outcome) {
        if let Outcome::Failed(why) | Outcome::Refused(why) = &outcome {
            self.context.log.warn(format!("{channel}: {why}"));
        }
        self.all.push((channel.into(), recipient.into(), outcome));
    }

    /// Texts of the outcomes that `pick` picks.
    pub fn texts(&self, pick: impl Fn(&Outcome) -> bool) -> Vec<String> {
        self.all.iter().filter(|(_, _, o)| pick(o)).map(|(channel, _, o)| format!("{channel}: {}", o.detail())).collect()
    }

    /// For the job's result.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let line = |(channel, recipient, outcome): &(String, String, Outcome)| json!({ "channel": channel, "recipient": recipient, "outcome": outcome.word(), "detail": outcome.detail() });
        self.all.iter().map(line).collect()
    }
}
