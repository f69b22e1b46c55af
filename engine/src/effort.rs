//! How hard a backup may work while the application runs beside it.

use rustix::process::setpriority_process;
use std::{
    io,
    num::NonZeroU64,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Longest sleep between two looks at whether to stop.
const NAP: Duration = Duration::from_millis(100);

/// Threads, priority and rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Compressing threads, at least 1.
    pub threads: usize,
    /// Niceness of threads that compress, read files and write archives: 0 (as everybody) to 19. The kernel takes the
    /// I/O priority from it, (niceness + 20) / 5 within best-effort, where the I/O scheduler has priorities (ioprio_set(2)).
    pub nice: u8,
    /// Bytes of input (SQL or tar, before compression) per second; none: as fast as it goes.
    pub max_rate: Option<NonZeroU64>,
}

impl Effort {
    /// As fast as this machine can with so many threads.
    pub const fn full(threads: usize) -> Self {
        Self { threads, nice: 0, max_rate: None }
    }

    /// Does blocking work on a thread of this niceness, for an async caller. A panic is an error.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        // The receiver is gone when the caller has stopped waiting.
        self.spawn(move || drop(done.send(work())));
        result.await.map_err(|_| io::Error::other("a working thread panicked"))
    }

    /// A thread of this niceness.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let nice = self.nice;
        std::thread::spawn(move || {
            be_nice(nice);
            work()
        })
    }
}

/// Lowers the priority of the calling thread, and of what it starts from now on. For good: raising it takes a capability.
///
/// On Linux niceness is a thread's own (setpriority(2), "C library/kernel differences").
pub fn be_nice(nice: u8) {
    if nice > 0
        && let Err(error) = setpriority_process(None, i32::from(nice))
    {
        // Nothing forbids a lower priority; all the same the backup matters more.
        tracing::warn!(%error, "cannot lower a thread's priority");
    }
}

/// Holds a stream to a rate. Time in which nothing came is not made up for beyond a second.
#[derive(Debug)]
pub struct Throttle {
    rate: u64,
    /// When the bytes so far are paid for.
    paid_until: Instant,
}

impl Throttle {
    /// A stream of at most `rate` bytes per second.
    pub fn new(rate: NonZeroU64) -> Self {
        Self { rate: rate.get(), paid_until: Instant::now() }
    }

    /// Counts `bytes` and sleeps until they are due; an error when cancelled meanwhile.
    pub fn pay(&mut self, bytes: usize, cancel: &CancellationToken) -> io::Result<()> {
        let now = Instant::now();
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.paid_until = self.paid_until.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        loop {
            if cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            let left = self.paid_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_as_long_as_its_rate_says() {
        let mut throttle = Throttle::new(NonZeroU64::new(1_000_000).unwrap());
        let start = Instant::now();
        for _ in 0..30 {
            throttle.pay(10_000, &CancellationToken::new()).unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(299), "{:?}", start.elapsed());
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut throttle = Throttle::new(NonZeroU64::new(1_000).unwrap());
        throttle.paid_until = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        throttle.pay(1_200, &CancellationToken::new()).unwrap();
        let ahead = throttle.paid_until.elapsed();
        assert!(ahead < Duration::from_millis(500), "{ahead:?}");
    }

    #[test]
    fn a_sleeping_stream_is_cancelled_at_once() {
        let mut throttle = Throttle::new(NonZeroU64::new(1).unwrap());
        let cancel = CancellationToken::new();
        let canceller = cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            canceller.cancel();
        });
        let start = Instant::now();
        assert!(throttle.pay(1_000_000, &cancel).is_err());
        assert!(start.elapsed() < Duration::from_secs(2));
        thread.join().unwrap();
    }

    #[test]
    fn a_nice_thread_is_nice_alone() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let nice = Effort { nice: 19, ..Effort::full(1) };
        let inside = nice.spawn(|| rustix::process::getpriority_process(None).unwrap()).join().unwrap();
        assert_eq!(inside, 19);
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
