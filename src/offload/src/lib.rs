//! CPU-bound work on large bodies, on a [thread pool](offload) so that data arbiters are not blocked.

mod encode;
mod pool;

pub use encode::{encode_and_take_body, is_long_to_encode};
pub use pool::{INLINE_LEN, Priority, counts, discard, is_long, offload, read};
