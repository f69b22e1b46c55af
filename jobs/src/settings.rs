//! Settings: rows of Heratio's `ahg_settings` with `setting_group = 'backup'`, read at the start of each job.
//!
//! Where the application has no such table, the one of the same shape in the control schema serves.

use sqlx::MySqlConnection;
use std::{collections::HashMap, path::PathBuf};

/// The group's rows.
#[derive(Debug, Clone, Default)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// Reads them over a connection to the application database and one to the control schema.
    pub async fn read(application: &mut MySqlConnection, control: &mut MySqlConnection) -> sqlx::Result<Self> {
        let known: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'ahg_settings'")
                .fetch_optional(&mut *application)
                .await?;
        let rows = if known.is_some() { rows(application).await? } else { rows(control).await? };
        Ok(Self(rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
    }

    /// For tests.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// `backup_path`: the backup directory, if set.
    pub fn backup_path(&self) -> Option<PathBuf> {
        self.0.get("backup_path").map(|p| p.trim()).filter(|p| !p.is_empty()).map(PathBuf::from)
    }
}

async fn rows(connection: &mut MySqlConnection) -> sqlx::Result<Vec<(String, Option<String>)>> {
    sqlx::query_as("SELECT setting_key, setting_value FROM ahg_settings WHERE setting_group = 'backup'").fetch_all(connection).await
}
