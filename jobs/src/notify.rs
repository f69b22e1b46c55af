//! The kind `notify`: tells people how a job ended, or that something needs them.
//!
//! A job's final transaction enqueues it (`tell`), so that a job cannot end untold, and telling can neither
//! delay nor fail it. It goes through the application's own in-app notifications, a spool file for the
//! workbench, and mail. Each delivery is remembered right after it ([`deliveries`]), and a retry goes on with
//! what is missing. Killed between the mail server's 250 and that row: this mail is sent again, with the same
//! Message-ID. Killed between the in-app rows' COMMIT and the row: the rows are found again, none is added. Killed
//! between the spool file's rename and the row: the file is found again, unless its reader has taken it by then.

pub mod deliveries;
pub mod in_app;
pub mod mail;
pub mod message;
mod render;
pub mod spool;

use crate::{
    config::mail::MailConfig,
    failpoint,
    health::Alert,
    job::{Context, Done, Job, Policy, Tell, explain, give_up},
    queue::{NewJob, enqueue, history},
    register,
    settings::Settings,
    state::State,
};
use anyhow::anyhow;
use deliveries::{Deliveries, Outcome};
use engine::sql::server_error;
use message::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::MySqlConnection;
use std::time::Duration;

/// Longest wait for the application database to let us in; the mail does not wait longer.
const APPLICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// What to tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected {\"job\": NUMBER}, or an alert as jobs/src/health.rs makes it")]
pub enum Notify {
    /// How a job ended. Its row is read when this runs: it is final by then.
    End(End),
    /// A health alert.
    Alert(Alert),
}

/// The end of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Its number.
    pub job: u64,
}

impl Job for Notify {
    const KIND: &'static str = "notify";
    const DESCRIPTION: &'static str = "Tells people how a job ended, or that something needs them";
    /// Sixteen attempts over ten hours: a mail server's bad night. Behind everything else in the line.
    const POLICY: Policy = Policy {
        max_attempts: 16,
        retry_delay: Duration::from_secs(60),
        time_limit: Duration::from_secs(600),
        priority: 200,
        notify: Tell::Never,
        ..Policy::repeatable()
    };

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let mut connection = context.pool.acquire().await?;
        let (mut message, switch) = match self {
            Self::End(End { job }) => {
                let row = history::show(&mut connection, *job).await?;
                let row = row.ok_or_else(|| give_up(anyhow!("job {job} is not in the history any more: nothing to tell")))?;
                if !row.state.is_final() {
                    return Ok(Done::completed(json!({ "skipped": format!("job {job} was started again: its next end is told") })));
                }
                let switch = if row.state == State::Completed { "backup_notify_on_success" } else { "backup_notify_on_failure" };
                (Message::of_job(&row, &context.config), switch)
            }
            Self::Alert(alert) => {
                let row = history::show(&mut connection, context.job_id).await?;
                let at = row.map_or_else(chrono::Utc::now, |r| r.created_at);
                (Message::of_alert(alert, context.job_id, at, &context.config), "backup_notify_on_failure")
            }
        };
        let deliveries = Deliveries::load(&mut connection, context).await?;
        drop(connection);

        let application = Application::open(context).await;
        if !application.settings.switch(switch, true) {
            return Ok(Done::completed(json!({ "subject": message.subject, "skipped": format!("the setting {switch} is off") })));
        }
        if let Err(why) = &application.connection {
            message.notes.push(format!(
                "The application database cannot be used ({why}), so its settings are not known: this goes to MAIL_FROM_ADDRESS. \
                 The in-app notification follows when the database is back."
            ));
        }
        deliver(context, application, &message, deliveries).await
    }
}

/// The application database, as far as it can be had.
struct Application {
    connection: Result<MySqlConnection, String>,
    /// The defaults when it cannot.
    settings: Settings,
}

impl Application {
    async fn open(context: &Context) -> Self {
        let opened = async {
            let mut application = context.config.application.connect().await?;
            let mut control = context.pool.acquire().await?;
            let settings = Settings::read(&mut application, &mut control).await?;
            anyhow::Ok((application, settings))
        };
        match tokio::time::timeout(APPLICATION_TIMEOUT, opened).await {
            Ok(Ok((connection, settings))) => Self { connection: Ok(connection), settings },
            Ok(Err(error)) => Self::without(explain(&error)),
            Err(_) => Self::without(format!("no answer within {} s", APPLICATION_TIMEOUT.as_secs())),
        }
    }

    fn without(why: String) -> Self {
        Self { connection: Err(why), settings: Settings::default() }
    }
}

/// Delivers through every channel, the ones on this host first; one that fails keeps none of the others.
async fn deliver(context: &Context, application: Application, message: &Message, mut deliveries: Deliveries<'_>) -> anyhow::Result<Done> {
    let settings = &application.settings;
    let username = settings.text("backup_notify_workbench_username").unwrap_or("admin");

    let file = spool::file_name(message.at);
    if deliveries.wants("spool", &file) {
        let outcome = spool::deliver(&context.config, &file, message, username).await;
        deliveries.record("spool", &file, outcome).await;
    }
    if deliveries.wants("in_app", "application") {
        let outcome = match application.connection {
            Ok(mut connection) => in_app::deliver(&mut connection, message, username).await,
            Err(why) => Outcome::Failed(format!("application database: {why}")),
        };
        deliveries.record("in_app", "application", outcome).await;
    }
    match &context.config.mail {
        MailConfig::Off(why) => deliveries.note("mail", "", Outcome::Off(why.clone())),
        MailConfig::Smtp(smtp) => match mail::recipients(settings.text("backup_notification_email"), smtp) {
            recipients if recipients.is_empty() => {
                let why = "neither the setting backup_notification_email nor MAIL_FROM_ADDRESS is set";
                deliveries.note("mail", "", Outcome::Off(why.into()));
            }
            recipients => {
                for to in recipients {
                    if deliveries.wants("mail", &to) {
                        let outcome = mail::deliver(smtp, &to, message, context).await;
                        failpoint::hit(failpoint::MID_WORK).await;
                        deliveries.record("mail", &to, outcome).await;
                    }
                }
            }
        },
    }
    conclude(context, message, deliveries)
}

/// Another attempt for what may still succeed; otherwise what came of it, failed if something was refused.
fn conclude(context: &Context, message: &Message, deliveries: Deliveries<'_>) -> anyhow::Result<Done> {
    let (retry, refused) = (deliveries.texts(|o| matches!(o, Outcome::Failed(_))), deliveries.texts(|o| matches!(o, Outcome::Refused(_))));
    if !retry.is_empty() && !context.is_last_attempt {
        return Err(anyhow!("{}", retry.join("; ")));
    }
    let result = json!({ "subject": message.subject, "deliveries": deliveries.lines() });
    let errors = [refused, retry].concat();
    if errors.is_empty() {
        return Ok(Done::completed(result));
    }
    Ok(Done { state: State::Failed, error: Some(errors.join("; ")), ..Done::completed(result) })
}

/// Enqueues the notification of a job's end, if its kind wants one, and says whether it does. Part of the transaction that ends the job.
///
/// A cancelled job's end is not told: whoever cancelled it knows.
pub(crate) async fn tell(connection: &mut MySqlConnection, kind: &str, job_id: u64, state: State) -> sqlx::Result<bool> {
    let wanted = is_told(register::find(kind).map_or(Tell::Trouble, |k| k.policy.notify), state);
    if wanted {
        let job = new_job(&Notify::End(End { job: job_id }), format!("job {job_id}"), Some(format!("notify:{job_id}")))?;
        unless_not_migrated(enqueue(connection, &job).await.map(drop))?;
    }
    Ok(wanted)
}

fn is_told(tell: Tell, state: State) -> bool {
    match state {
        State::Completed => tell == Tell::Always,
        State::CompletedWithWarnings | State::Failed => tell != Tell::Never,
        State::Cancelled | State::Available | State::Running => false,
    }
}

/// A job that tells.
pub(crate) fn new_job(notify: &Notify, from: String, unique_key: Option<String>) -> sqlx::Result<NewJob> {
    let job = NewJob::new(notify, "heratio-backup", from).map_err(sqlx::Error::Protocol)?;
    Ok(NewJob { unique_key, ..job })
}

/// Until `worker migrate` has run, a new program's kind or table is unknown: jobs must end all the same.
pub(crate) fn unless_not_migrated(told: sqlx::Result<()>) -> sqlx::Result<()> {
    match told {
        Err(error) if matches!(server_error(&error), Some(1146 | 1452)) => {
            tracing::warn!(%error, "cannot enqueue a notification: run `worker migrate`");
            Ok(())
        }
        told => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_ends_are_told() {
        let told = |tell| State::ALL.into_iter().filter(|s| is_told(tell, *s)).collect::<Vec<_>>();
        assert_eq!(told(Tell::Always), [State::Completed, State::CompletedWithWarnings, State::Failed]);
        assert_eq!(told(Tell::Trouble), [State::CompletedWithWarnings, State::Failed]);
        assert_eq!(told(Tell::Never), []);
    }

    #[test]
    fn payloads() {
        let check = |text: &str| (register::find("notify").unwrap().check)(&serde_json::from_str(text).unwrap());
        assert_eq!(check(r#"{"job":41}"#).unwrap(), []);
        assert_eq!(check(r#"{"alert":"no_good_backup","message":"m","next":"n"}"#).unwrap(), []);
        for payload in ["{}", r#"{"job":"x"}"#, r#"{"job":41,"more":1}"#, r#"{"alert":"rain","message":"m","next":"n"}"#] {
            let error = check(payload).unwrap_err();
            assert!(error.contains("expected {\"job\": NUMBER}"), "{error}");
        }
    }
}
