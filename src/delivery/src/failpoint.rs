//! Points in the code where a test can end the process.

/// Aborts the process, as `kill -9` would, if the environment variable `CROSSDOCK_FAILPOINT` is `name@count` and this is the `count`-th call with
/// this name. Does nothing in builds without debug assertions.
#[inline]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};

        static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let chosen = CHOSEN.get_or_init(|| {
            let text = std::env::var("CROSSDOCK_FAILPOINT").ok()?;
            let (name, count) = text.split_once('@')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        if let Some((_, count)) = chosen.as_ref().filter(|(chosen, _)| chosen == name)
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
        {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
