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

    /// Reads those of the control schema alone, for when there is no application database.
    pub async fn read_control(control: &mut MySqlConnection) -> sqlx::Result<Self> {
        Ok(Self(rows(control).await?.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
    }

    /// For tests.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// `backup_path`: the backup directory, if set.
    pub fn backup_path(&self) -> Option<PathBuf> {
        self.text("backup_path").map(PathBuf::from)
    }

    /// A setting's text; none when it is missing or blank.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|p| p.trim()).filter(|p| !p.is_empty())
    }

    /// A whole number between `least` and `most`; `default` when it is missing or blank. The error names the setting.
    pub fn number(&self, key: &str, default: u32, least: u32, most: u32) -> Result<u32, String> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
            format!("the setting {key}, `{text}`, is not a whole number from {least} to {most}; nothing was removed. Next: correct it in ahg_settings")
        })
    }

    /// A switch as Heratio's `getBool` reads it: on for `true` and `1`, off for any other value, `default` when missing.
    pub fn switch(&self, key: &str, default: bool) -> bool {
        self.0.get(key).map_or(default, |v| matches!(v.as_str(), "true" | "1"))
    }
}

async fn rows(connection: &mut MySqlConnection) -> sqlx::Result<Vec<(String, Option<String>)>> {
    sqlx::query_as("SELECT setting_key, setting_value FROM ahg_settings WHERE setting_group = 'backup'").fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_heratio_does() {
        let settings = Settings::from_pairs([("a", "true"), ("b", "1"), ("c", "0"), ("d", ""), ("e", "yes"), ("f", "TRUE")]);
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(|k| settings.switch(k, true)), [true, true, false, false, false, false]);
        assert!(settings.switch("missing", true) && !settings.switch("missing", false));
        assert_eq!((settings.text("b"), settings.text("d"), settings.text("missing")), (Some("1"), None, None));
    }
}
