//! The one list of kinds. The worker, the table `kinds` and the tests are made from it.

use crate::{
    backup::Backup,
    component::Component,
    delete::Delete,
    job::{BoxFuture, Context, Done, Field, Job, Policy},
    notify::Notify,
    prune::Prune,
    restore::Restore,
    restore_plan::RestorePlan,
    undo::Undo,
    verify::Verify,
};

/// Every kind of job. Adding one: its file, its test file, its line here.
pub const KINDS: &[Kind] = &[
    Kind::of::<Backup>(),
    Kind::of::<Prune>(),
    Kind::of::<Verify>(),
    Kind::of::<Delete>(),
    Kind::of::<Notify>(),
    Kind::of::<RestorePlan>(),
    Kind::of::<Restore>(),
    Kind::of::<Undo>(),
    #[cfg(any(debug_assertions, feature = "test-kinds"))]
    Kind::of::<crate::test_kinds::TestRepeatable>(),
    #[cfg(any(debug_assertions, feature = "test-kinds"))]
    Kind::of::<crate::test_kinds::TestDestructive>(),
    #[cfg(any(debug_assertions, feature = "test-kinds"))]
    Kind::of::<crate::test_kinds::TestUnique>(),
    #[cfg(any(debug_assertions, feature = "test-kinds"))]
    Kind::of::<crate::test_kinds::TestNothing>(),
];

/// A kind without its payload type.
pub struct Kind {
    /// [`Job::KIND`].
    pub name: &'static str,
    /// [`Job::DESCRIPTION`].
    pub description: &'static str,
    /// [`Job::POLICY`].
    pub policy: Policy,
    /// [`Job::FIELDS`].
    pub fields: &'static [Field],
    /// [`Job::RESOURCES`].
    pub resources: &'static [Component],
    /// Checks a payload and names the resources it needs, or says what is wrong with it.
    pub check: fn(&serde_json::Value) -> Result<Vec<Component>, String>,
    /// Runs a payload.
    pub run: for<'c> fn(serde_json::Value, &'c Context) -> BoxFuture<'c, anyhow::Result<Done>>,
}

impl Kind {
    const fn of<J: Job>() -> Self {
        Self {
            name: J::KIND,
            description: J::DESCRIPTION,
            policy: J::POLICY,
            fields: J::FIELDS,
            resources: J::RESOURCES,
            check: check::<J>,
            run: run::<J>,
        }
    }
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.name == name)
}

fn decode<J: Job>(payload: &serde_json::Value) -> Result<J, String> {
    if !payload.is_object() {
        return Err(format!("payload of kind `{}`: not a JSON object", J::KIND));
    }
    serde_json::from_value(payload.clone()).map_err(|e| format!("payload of kind `{}`: {e}", J::KIND))
}

fn check<J: Job>(payload: &serde_json::Value) -> Result<Vec<Component>, String> {
    let job: J = decode(payload)?;
    job.validate()?;
    Ok(job.resources())
}

fn run<J: Job>(payload: serde_json::Value, context: &Context) -> BoxFuture<'_, anyhow::Result<Done>> {
    Box::pin(async move {
        let job: J = decode(&payload).map_err(|e| crate::job::give_up(anyhow::anyhow!(e)))?;
        job.run(context).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_has_its_file_and_its_tests() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for kind in KINDS.iter().filter(|k| !k.name.starts_with("test_")) {
            for file in [format!("{root}/jobs/src/{}.rs", kind.name), format!("{root}/tests/{}.rs", kind.name)] {
                assert!(std::path::Path::new(&file).exists(), "{file} is missing");
            }
        }
    }

    #[test]
    fn names_are_unique_and_destructive_kinds_are_never_retried() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..i].iter().all(|other| other.name != kind.name), "{}", kind.name);
            assert!(!kind.policy.at_most_once || kind.policy.max_attempts == 1, "{}", kind.name);
        }
    }

    /// The procedures must know every field that the payload has, and no other. Notices are made by jobs alone.
    #[test]
    fn fields_are_the_payloads_own() {
        for kind in KINDS.iter().filter(|k| k.name != Notify::KIND) {
            // serde lists the fields that it knows: "unknown field `?`, expected `components` or `label`".
            let text = (kind.check)(&json!({ "?": 0 })).unwrap_err();
            let (_, expected) = text.split_once("expected").unwrap_or_else(|| panic!("{}: add deny_unknown_fields: {text}", kind.name));
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            let listed: Vec<&str> = kind.fields.iter().map(|f| f.name).collect();
            assert_eq!(listed, known, "FIELDS of kind `{}`", kind.name);
        }
    }

    #[test]
    fn resources_are_those_of_the_empty_payload() {
        for kind in KINDS {
            if let Ok(resources) = (kind.check)(&json!({})) {
                assert_eq!(resources, kind.resources, "RESOURCES of kind `{}`", kind.name);
            }
        }
    }
}
