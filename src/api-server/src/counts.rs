//! What was called, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tonic::Code;

/// Calls of the API.
#[derive(Debug, Default)]
pub struct Counts {
    /// Open connections.
    pub(crate) connections: AtomicU64,
    calls: Mutex<BTreeMap<(String, i32), u64>>,
}

impl Counts {
    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Calls by method, such as `Locks/Acquire`, and code, such as `OK`. A stream counts with the code with which it began.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, String, u64)> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|((method, code), count)| (method.clone(), name_of(Code::from_i32(*code)), *count)).collect()
    }

    /// Counts a call. Methods are those of the contract, or `other`.
    pub(crate) fn count(&self, method: &str, code: Code) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((method.to_owned(), code as i32)).or_default() += 1;
    }
}

/// The name of a code, as in `google.rpc.Code`.
pub(crate) fn name_of(code: Code) -> String {
    let mut name = String::new();
    for (at, letter) in format!("{code:?}").char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
