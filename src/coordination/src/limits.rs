//! The limits of the state. A command that would exceed one is refused. All instances must agree on them, so a change needs a
//! new version of the state.

use std::ops::RangeInclusive;

/// Maximum number of sessions.
pub const SESSIONS_MAX: usize = 10_000;
/// Time to live of a session, in milliseconds.
pub const TTL_MS: RangeInclusive<u64> = 100..=86_400_000;

/// Maximum length of the name of a lock, sequence or budget, of a session's label, of an owner and of a reason, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Maximum length of the metadata of a request, in bytes.
pub const METADATA_BYTES_MAX: usize = 1024;
/// Maximum number of locks in one request.
pub const CLAIMS_MAX: usize = 16;
/// Maximum number of permits of a semaphore.
pub const PERMITS_MAX: u32 = 100_000;
/// Maximum number of requests that wait or hold, of one session and in total, and their total length in bytes.
pub const SESSION_REQUESTS_MAX: usize = 10_000;
/// See [`SESSION_REQUESTS_MAX`].
pub const REQUESTS_MAX: usize = 200_000;
/// See [`SESSION_REQUESTS_MAX`].
pub const REQUESTS_BYTES_MAX: usize = 64 << 20;
/// Maximum number of locks that are held, waited for, or closed after the death of a holder.
pub const LOCKS_MAX: usize = 200_000;
/// Maximum time to wait for a lock, in milliseconds.
pub const WAIT_MS_MAX: u64 = 86_400_000;
/// Maximum time to hold a lock, in milliseconds, if a request limits it.
pub const HOLD_MS_MAX: u64 = 30 * 86_400_000;
/// Maximum time for which a lock stays closed after the death of its holder, in milliseconds.
pub const DELAY_MS_MAX: u64 = 3_600_000;
/// Number of ranges of finished request numbers that are kept of a session: one more than there can be open requests. Numbers
/// between the lowest ones count as finished beyond that.
pub const FINISHED_RANGES_MAX: usize = SESSION_REQUESTS_MAX + 1;
/// Maximum number of such ranges over all sessions. Beyond it, the lowest ranges of a session are joined instead of adding one.
pub const ALL_FINISHED_RANGES_MAX: usize = 1_000_000;
/// Number of locks taken by force that are remembered, and of holders of each.
pub const BROKEN_MAX: usize = 256;
/// See [`BROKEN_MAX`].
pub const BROKEN_HOLDERS_MAX: usize = 16;
/// Maximum number of requests that wait for a lock.
pub const WAITERS_MAX: usize = 10_000;
/// A request for several locks is granted only if at most this many requests that it could share a lock with wait for that lock
/// before it. This bounds the time that a grant takes.
pub const SHARING_WAITERS_MAX: usize = 1_000;

/// Maximum number of sequences.
pub const SEQUENCES_MAX: usize = 100_000;
/// Maximum count of numbers that are taken from a sequence at once.
pub const NUMBERS_MAX: u64 = 1_000_000;

/// Maximum number of budgets that are not full.
pub const BUDGETS_MAX: usize = 100_000;
/// Maximum count and burst of a budget's rate.
pub const RATE_MAX: u64 = 1_000_000_000;
/// Maximum time of a budget's rate, in milliseconds.
pub const RATE_PER_MS_MAX: u64 = 86_400_000;

/// Maximum number of groups of results.
pub const RESULT_GROUPS_MAX: usize = 1_000;
/// Maximum length of a result, of all results of a group with their keys, and of all groups, in bytes.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// See [`RESULT_BYTES_MAX`].
pub const RESULT_GROUP_BYTES_MAX: usize = 64 << 20;
/// See [`RESULT_BYTES_MAX`].
pub const RESULTS_BYTES_MAX: usize = 256 << 20;

/// Maximum number of files of a generation of the routes, and their length in bytes with their paths. A command contains all of them.
pub const FILES_MAX: usize = 2_000;
/// See [`FILES_MAX`].
pub const FILES_BYTES_MAX: usize = 3 << 20;
/// Number of generations that are kept, the one in force included.
pub const GENERATIONS_MAX: usize = 20;
/// Maximum number of instances of a stage.
pub const STAGE_MAX: usize = 100;
/// Maximum length of the comment on a generation, and of the problem of an instance with one, in bytes.
pub const COMMENT_BYTES_MAX: usize = 1024;
/// See [`COMMENT_BYTES_MAX`].
pub const PROBLEM_BYTES_MAX: usize = 16 << 10;
/// Maximum length of the problems of all instances with a generation that are kept, in bytes.
pub const PROBLEMS_BYTES_MAX: usize = 256 << 10;
/// Maximum time for instances to prepare a generation, in milliseconds.
pub const PREPARE_MS_MAX: u64 = 600_000;

/// Maximum number of guards of a command.
pub const GUARDS_MAX: usize = 16;
/// Number of expired timers and ended requests after which a tick stops and leaves the rest to the next one, to bound the time
/// that a command takes.
pub const EXPIRED_MAX: usize = 1_000;
/// The most by which the clock advances between two commands, in milliseconds.
pub const CLOCK_STEP_MS_MAX: u64 = 2_000;

/// Number of slots of a queue: as many consumers can have messages of it at the same time; further ones wait for a slot.
pub const SLOTS: u32 = 64;
/// Maximum number of queues that have messages, consumers, or ids of messages that they remember.
pub const QUEUES_MAX: usize = 1_000;
/// Maximum number of pairs of a session and a queue that it uses. For each, the last answer is kept.
pub const USES_MAX: usize = 10_000;
/// Maximum number of consumers of a queue.
pub const CONSUMERS_MAX: usize = 1_000;
/// Maximum length of the key and of the id of a message, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Maximum length of a message in bytes, and of the result of one.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Maximum length of all messages, dead letters and remembered ids of a queue, and of all queues, in bytes.
pub const QUEUE_BYTES_MAX: usize = 128 << 20;
/// See [`QUEUE_BYTES_MAX`].
pub const QUEUES_BYTES_MAX: usize = 512 << 20;
/// What a message counts for besides its payload, its key and its id, in bytes: about the memory that it needs.
pub const MESSAGE_OVERHEAD: usize = 256;
/// Maximum number of messages in a command.
pub const BATCH_LEN_MAX: usize = 1_000;
/// Maximum time by which a message is delayed, in milliseconds.
pub const MESSAGE_DELAY_MS_MAX: u64 = 30 * 86_400_000;
/// Maximum window in which duplicates are recognized, in milliseconds.
pub const WINDOW_MS_MAX: u64 = 30 * 86_400_000;
