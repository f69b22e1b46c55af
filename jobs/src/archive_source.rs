//! Where the archives of a restore are read.

use crate::{
    backup::checked_directory,
    component::Component,
    config::Config,
    job::{Context, give_up},
    restore_plan::RestorePlan,
    settings::Settings,
};
use anyhow::{Context as _, anyhow};
use engine::{archive::read_manifest, cut_over, files::extract::is_tar, verify::Expected};
use sqlx::{MySqlConnection, Row, mysql::MySqlRow};
use std::path::{Path, PathBuf};

/// An archive that can be read on this node.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it holds.
    pub component: Component,
    /// As people name it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What the catalog knows of it; none: it is not in the catalog.
    pub expected: Option<Expected>,
}

/// The archives that a request means, in the order of [`Component::ALL`].
pub async fn sources(context: &Context, request: &RestorePlan) -> anyhow::Result<Vec<Source>> {
    let archive = &request.archive;
    if let Ok(backup) = archive.parse::<u64>() {
        return of_backup(context, request, backup).await;
    }
    let row =
        sqlx::query("SELECT node, directory, file_name, component, size, sha256 FROM archives WHERE file_name = ? AND state = 'complete'")
            .bind(archive)
            .fetch_optional(&context.pool)
            .await?;
    let source = match row {
        Some(row) => listed(context, &row).await?,
        None => unlisted(context, request).await?,
    };
    match request.components[..] {
        [] => {}
        [asked] if asked == source.component => {}
        _ => {
            let asked: Vec<String> = request.components.iter().map(ToString::to_string).collect();
            return Err(give_up(anyhow!("{} is an archive of {}, not of {}", source.name, source.component, asked.join(", "))));
        }
    }
    Ok(vec![source])
}

async fn of_backup(context: &Context, request: &RestorePlan, backup: u64) -> anyhow::Result<Vec<Source>> {
    let rows = sqlx::query(
        "SELECT node, directory, file_name, component, size, sha256 FROM archives WHERE backup_id = ? AND state = 'complete' ORDER BY id",
    )
    .bind(backup)
    .fetch_all(&context.pool)
    .await?;
    let mut found = Vec::new();
    for row in &rows {
        let component: Component = row.try_get::<String, _>("component")?.parse().map_err(|e: String| give_up(anyhow!(e)))?;
        if request.components.is_empty() || request.components.contains(&component) {
            found.push(listed(context, row).await?);
        }
    }
    if let Some(missing) = request.components.iter().find(|c| !found.iter().any(|f| f.component == **c)) {
        return Err(give_up(anyhow!("backup {backup} has no {missing}. Next: `enqueue backups` lists what it has")));
    }
    if found.is_empty() {
        return Err(give_up(anyhow!("there is no backup {backup} with archives. Next: `enqueue backups` lists them")));
    }
    found.sort_by_key(|f| f.component);
    Ok(found)
}

/// An archive of the catalog.
async fn listed(context: &Context, row: &MySqlRow) -> anyhow::Result<Source> {
    let name: String = row.try_get("file_name")?;
    let component = row.try_get::<String, _>("component")?.parse().map_err(|e: String| give_up(anyhow!(e)))?;
    let expected = Expected { size: row.try_get("size")?, sha256: row.try_get("sha256")? };
    let path = local_path(context, row.try_get("node")?, row.try_get("directory")?, &name).await?;
    Ok(Source { component, name, path, expected: Some(expected) })
}

/// Where an archive of the catalog can be read on this node: the one place to fetch it from elsewhere.
async fn local_path(context: &Context, node: String, directory: String, name: &str) -> anyhow::Result<PathBuf> {
    if node != context.config.node {
        return Err(give_up(anyhow!(
            "{name} lies on node `{node}`, and this is `{}`. Next: leave --node out, or name that node",
            context.config.node
        )));
    }
    Ok(Path::new(&directory).join(name))
}

/// A file that the catalog does not know: by its path, or in the backup directory.
async fn unlisted(context: &Context, request: &RestorePlan) -> anyhow::Result<Source> {
    let archive = &request.archive;
    let path = unlisted_path(context, archive).await?;
    let name = path.file_name().map_or_else(|| archive.clone(), |n| n.to_string_lossy().into_owned());
    let look = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || anyhow::Ok((read_manifest(&path)?, is_tar(&path)?))).await?.map_err(give_up)?
    };
    let component = match look {
        (Some(manifest), _) => manifest.component.parse().map_err(|e: String| give_up(anyhow!(e)))?,
        (None, false) => Component::Database,
        (None, true) => component_of_tar(&name, &request.components).map_err(|e| give_up(anyhow!(e)))?,
    };
    Ok(Source { component, name, path, expected: None })
}

/// The path of a file that the catalog does not know.
pub async fn unlisted_path(context: &Context, archive: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(archive);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    if archive.contains('/') {
        return Err(give_up(anyhow!("{archive}: write an absolute path, or the name of an archive that `enqueue backups` lists")));
    }
    let path = backup_directory(context).await?.join(archive);
    if !path.exists() {
        return Err(give_up(anyhow!(
            "there is no archive `{archive}`, neither in the catalog nor as {}. Next: `enqueue backups` lists them",
            path.display()
        )));
    }
    Ok(path)
}

/// What a tar of another program holds: as its name says (Heratio's own older archives), else as the person says.
pub fn component_of_tar(name: &str, asked: &[Component]) -> Result<Component, String> {
    let by_name = Component::ALL
        .into_iter()
        .filter(|c| *c != Component::Database)
        .find(|c| name.starts_with(&format!("{c}_")))
        .or_else(|| name.starts_with("plugins_").then_some(Component::Packages));
    match (by_name, asked) {
        (Some(component), _) => Ok(component),
        (None, [component]) if *component != Component::Database => Ok(*component),
        (None, [Component::Database]) => Err(format!("{name} is a tar, and no dump of a database")),
        (None, _) => Err(format!("{name} is a tar, and does not say of what. Next: --components uploads, packages or framework")),
    }
}

/// The backup directory of this node, checked.
pub async fn backup_directory(context: &Context) -> anyhow::Result<PathBuf> {
    let mut application = context.config.application.connect_without_schema().await.context("application database")?;
    let mut control = context.pool.acquire().await?;
    let settings = settings(&context.config, &mut application, &mut control).await?;
    checked_directory(&context.config, &settings).map_err(give_up)
}

/// The settings, also when the live schema does not exist: then those of the control schema.
async fn settings(config: &Config, application: &mut MySqlConnection, control: &mut MySqlConnection) -> anyhow::Result<Settings> {
    if cut_over::schema_exists(application, &config.application.schema).await? {
        let mut application = config.application.connect().await.context("application database")?;
        return Ok(Settings::read(&mut application, control).await?);
    }
    Ok(Settings::read_control(control).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heratios_own_names_say_what_they_hold() {
        for (name, component) in [
            ("plugins_2025-01-31_020000.tar.gz", Component::Packages),
            ("packages_x.tar.gz", Component::Packages),
            ("uploads_2025-01-31_020000.tar.gz", Component::Uploads),
            ("framework_2025-01-31_020000.tar.gz", Component::Framework),
        ] {
            assert_eq!(component_of_tar(name, &[]), Ok(component), "{name}");
        }
        assert_eq!(component_of_tar("site.tar.gz", &[Component::Uploads]), Ok(Component::Uploads));
        assert!(component_of_tar("site.tar.gz", &[]).unwrap_err().contains("--components"));
        assert!(component_of_tar("site.tar.gz", &[Component::Database]).is_err());
    }
}
