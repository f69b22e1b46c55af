//! stub
use crate::{component::Component, job::*};
use serde::{Deserialize, Serialize};
/// Backs up.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
pub struct Backup {
    /// What to include.
    #[arg(long, value_delimiter = ',', default_values_t = Component::ALL)]
    pub components: Vec<Component>,
    /// A name.
    #[arg(long)]
    #[serde(default)]
    pub label: Option<String>,
}
impl Job for Backup {
    const KIND: &'static str = "backup";
    const DESCRIPTION: &'static str = "Backs up";
    const POLICY: Policy = Policy::repeatable();
    fn resources(&self) -> Vec<Component> { self.components.clone() }
    async fn run(&self, _c: &Context) -> anyhow::Result<Done> { Ok(Done::completed(serde_json::json!({}))) }
}
