//! Which of the servers of an engine is used.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The servers of an engine, one of which is used until it does not answer.
#[derive(Debug)]
pub(crate) struct Servers {
    current: AtomicUsize,
    count: usize,
}

/// The server that a call uses. If this is dropped, the next call uses the next one, unless the server has answered.
pub(crate) struct Used<'s> {
    servers: &'s Servers,
    at: usize,
}

impl Servers {
    /// There is at least one.
    pub(crate) fn new(count: usize) -> Self {
        Self { current: AtomicUsize::new(0), count: count.max(1) }
    }

    pub(crate) fn using(&self) -> Used<'_> {
        Used { servers: self, at: self.current.load(Ordering::Relaxed) % self.count }
    }
}

impl Used<'_> {
    pub(crate) fn index(&self) -> usize {
        self.at
    }

    /// It has answered.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        // Other calls may have moved on already.
        let next = (self.at + 1) % self.servers.count;
        let _ = self.servers.current.compare_exchange(self.at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_used_until_it_does_not_answer() {
        let servers = Servers::new(2);
        servers.using().keep();
        let used = servers.using();
        assert_eq!(used.index(), 0);
        used.keep();
        let (first, second) = (Servers::new(3), Servers::new(3));
        drop(first.using());
        assert_eq!(first.using().index(), 1);
        // Two calls that fail together move on by one.
        let (one, other) = (second.using(), second.using());
        drop(one);
        drop(other);
        assert_eq!(second.using().index(), 1);
    }
}
