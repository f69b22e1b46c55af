//! Named places at which a test kills, stops or holds a worker. Debug builds only; a release build holds none of it.
//!
//! `HERATIO_FAILPOINT=after_claim=kill` (SIGKILL to itself), `=stop` (SIGSTOP), or `=hold:/path` (makes `/path.held`
//! and waits until `/path` exists). The first hit of the process counts.

/// Before a worker looks for a job.
pub const BEFORE_CLAIM: &str = "before_claim";
/// The claim is committed, the job not started.
pub const AFTER_CLAIM: &str = "after_claim";
/// The job's own code is about to start.
pub const AT_START: &str = "at_start";
/// Where the job's work is half done; each kind says where.
pub const MID_WORK: &str = "mid_work";
/// The job's code has ended, its outcome is not written.
pub const AFTER_WORK: &str = "after_work";
/// All rows of the final transaction are written, not committed.
pub const IN_FINAL_TRANSACTION: &str = "in_final_transaction";
/// The final transaction is committed.
pub const AFTER_FINAL_TRANSACTION: &str = "after_final_transaction";

/// Archives are marked as being deleted, their files are there.
pub const REMOVAL_MARKED: &str = "removal_marked";
/// A file is gone, its row does not say so.
pub const REMOVAL_UNLINKED: &str = "removal_unlinked";

/// Those of every job, in the order of its life.
pub const ALL: [&str; 7] = [BEFORE_CLAIM, AFTER_CLAIM, AT_START, MID_WORK, AFTER_WORK, IN_FINAL_TRANSACTION, AFTER_FINAL_TRANSACTION];

/// The places of a restore, in its order. Those that begin with `cut_over_` come before the step of that name is done.
pub const RESTORE: [&str; 17] = [
    "restore_verify",
    "restore_announced",
    "restore_stage",
    "restore_loading",
    "restore_check",
    "cut_over_begin",
    "cut_over_drop_events",
    "cut_over_lock",
    "cut_over_drop_triggers",
    "cut_over_settings",
    "cut_over_rename",
    "cut_over_renamed",
    "cut_over_triggers",
    "cut_over_drop_code",
    "cut_over_make_code",
    "cut_over_make_events",
    "cut_over_clean",
];

/// The places of a restore of files, in its order.
pub const FILES: [&str; 7] =
    ["files_announced", "files_stage", "files_unpacked", "files_ready", "files_swap", "files_swapping", "files_swapped"];

/// Does what the environment says for this place, in debug builds.
pub async fn hit(name: &str) {
    #[cfg(debug_assertions)]
    debug::hit(name).await;
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod debug {
    use rustix::process::{Signal, getpid, kill_process};
    use std::{
        path::PathBuf,
        sync::{
            OnceLock,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    static POINT: OnceLock<Option<(String, String)>> = OnceLock::new();
    static HIT: AtomicBool = AtomicBool::new(false);

    pub(super) async fn hit(name: &str) {
        let point = POINT.get_or_init(|| {
            let text = std::env::var("HERATIO_FAILPOINT").ok()?;
            text.split_once('=').map(|(name, action)| (name.to_owned(), action.to_owned()))
        });
        let Some((_, action)) = point.as_ref().filter(|(wanted, _)| wanted == name) else { return };
        if HIT.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::warn!("failpoint {name}: {action}");
        match action.split_once(':') {
            Some(("hold", path)) => {
                std::fs::write(format!("{path}.held"), "").unwrap_or_else(|e| panic!("failpoint {name}: {e}"));
                while !PathBuf::from(path).exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            _ => {
                let signal = if action == "kill" { Signal::KILL } else { Signal::STOP };
                kill_process(getpid(), signal).unwrap_or_else(|e| panic!("failpoint {name}: {e}"));
            }
        }
    }
}
