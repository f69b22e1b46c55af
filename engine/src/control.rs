//! What a caller holds over long work: a way to stop it, and what it says of its progress.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tokio_util::sync::CancellationToken;

/// Handed to every long operation of the engine; clones share one state.
#[derive(Clone, Default)]
pub struct Control {
    /// Cancelled when the work must stop: the operation returns its `Cancelled` error within a second
    /// and leaves nothing behind.
    pub cancel: CancellationToken,
    /// Where the work stands.
    pub progress: Arc<Progress>,
}

/// Progress of one job, written by the engine and read by whoever shows it.
#[derive(Default)]
pub struct Progress {
    phase: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

/// A reading of [`Progress`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What is being done, in a few words: "dumping database `heratio`".
    pub phase: String,
    /// Bytes of input (not of compressed output) done in this phase.
    pub done: u64,
    /// Bytes expected in this phase; an estimate; 0 when unknown.
    pub total: u64,
}

impl Progress {
    /// Starts a new phase at 0 of `total` bytes (0: unknown).
    pub fn phase(&self, phase: impl Into<String>, total: u64) {
        *self.phase.lock().unwrap_or_else(|e| e.into_inner()) = phase.into();
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts `bytes` more of input as done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes something that a person should know although the work goes on.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(|e| e.into_inner()).push(text.into());
    }

    /// Takes the warnings noted since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Reads the current state.
    pub fn read(&self) -> Snapshot {
        Snapshot {
            phase: self.phase.lock().unwrap_or_else(|e| e.into_inner()).clone(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }
}
