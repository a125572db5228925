//! What carries Zab between instances and keeps it on disk.
//!
//! | module | holds |
//! | --- | --- |
//! | [`wal`] | the write-ahead log, and snapshots beside it |

pub mod wal;
