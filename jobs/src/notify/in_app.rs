//! Heratio's in-app notifications: rows of `ahg_notification` in the application database.

use super::{deliveries::Outcome, message::Message};
use engine::sql::server_error;
use sqlx::{Connection, MySqlConnection};
use std::time::Duration;

/// Heratio's group of administrators.
const ADMINISTRATORS: u32 = 100;

/// Longest time for the rows.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Tells the active user of this name, or all active administrators when there is none.
///
/// One transaction looks for each row and inserts the missing ones, so that nobody is told twice: killed before
/// its COMMIT, nothing happened; after it, the next attempt finds them.
pub async fn deliver(connection: &mut MySqlConnection, message: &Message, username: &str) -> Outcome {
    match tokio::time::timeout(TIMEOUT, insert(connection, message, username)).await {
        Ok(Ok(outcome)) => outcome,
        // Without the privilege, or with another table of this name, the next attempt would fail as well.
        Ok(Err(error)) if matches!(server_error(&error), Some(1044 | 1142 | 1143)) => Outcome::Refused(format!(
            "application database: {error}. Next: grant the account SELECT on `user` and `acl_user_group`, and SELECT, INSERT on `ahg_notification`"
        )),
        Ok(Err(error)) if matches!(server_error(&error), Some(1054 | 1146)) => {
            Outcome::Refused(format!("application database: {error}. Next: upgrade Heratio, whose tables are not those known here"))
        }
        Ok(Err(error)) => Outcome::Failed(format!("application database: {error}")),
        Err(_) => Outcome::Failed(format!("application database: no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn insert(connection: &mut MySqlConnection, message: &Message, username: &str) -> sqlx::Result<Outcome> {
    let known: Option<i32> =
        sqlx::query_scalar("SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'ahg_notification'")
            .fetch_optional(&mut *connection)
            .await?;
    if known.is_none() {
        return Ok(Outcome::Off("the application has no table ahg_notification".into()));
    }
    let mut tx = connection.begin().await?;
    let (users, whom) = recipients(&mut tx, username).await?;
    if users.is_empty() {
        return Ok(Outcome::Off(format!("the application has no active user `{username}`, and no active administrator")));
    }
    let (related_type, related_id) = message.about;
    for user in users {
        let told: Option<i32> = sqlx::query_scalar(
            "SELECT 1 FROM ahg_notification
              WHERE user_id = ? AND type = ? AND related_type = ? AND related_id = ? AND created_at = ? LIMIT 1",
        )
        .bind(user)
        .bind(&message.kind)
        .bind(related_type)
        .bind(related_id)
        .bind(seconds(message))
        .fetch_optional(&mut *tx)
        .await?;
        if told.is_some() {
            continue;
        }
        sqlx::query(
            "INSERT INTO ahg_notification (user_id, type, title, message, link, related_type, related_id, actor_name, created_at)
             VALUES (?, ?, ?, ?, '/admin/backup', ?, ?, 'Heratio Backup', ?)",
        )
        .bind(user)
        .bind(&message.kind)
        .bind(&message.title)
        .bind(&message.summary)
        .bind(related_type)
        .bind(related_id)
        .bind(seconds(message))
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(Outcome::Delivered(whom))
}

/// Heratio's times are UTC, to the second.
fn seconds(message: &Message) -> String {
    message.at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Numbers of the users to tell, and who they are.
async fn recipients(connection: &mut MySqlConnection, username: &str) -> sqlx::Result<(Vec<u64>, String)> {
    let user: Option<u64> =
        sqlx::query_scalar("SELECT CAST(id AS UNSIGNED) FROM `user` WHERE username = ? AND active = 1 ORDER BY id LIMIT 1")
            .bind(username)
            .fetch_optional(&mut *connection)
            .await?;
    if let Some(user) = user {
        return Ok((vec![user], format!("user `{username}`")));
    }
    let users: Vec<u64> = sqlx::query_scalar(
        "SELECT DISTINCT CAST(u.id AS UNSIGNED) AS id FROM acl_user_group g JOIN `user` u ON u.id = g.user_id
          WHERE g.group_id = ? AND u.active = 1 ORDER BY id",
    )
    .bind(ADMINISTRATORS)
    .fetch_all(connection)
    .await?;
    let whom = format!("all {} active administrators, since there is no active user `{username}`", users.len());
    Ok((users, whom))
}
