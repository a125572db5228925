//! Commands, as they are in the log.

use prost::{Message, Oneof};

/// A command.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// It takes effect only if all these locks are held with these tokens.
    #[prost(message, repeated, tag = "1")]
    pub guards: Vec<Guard>,
    /// What to do.
    #[prost(
        oneof = "Operation",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24"
    )]
    pub operation: Option<Operation>,
}

/// A lock that must be held.
#[derive(Clone, PartialEq, Message)]
pub struct Guard {
    /// Its name.
    #[prost(string, tag = "1")]
    pub lock: String,
    /// The token of the holder.
    #[prost(uint64, tag = "2")]
    pub token: u64,
}

/// An operation.
#[derive(Clone, PartialEq, Oneof)]
pub enum Operation {
    /// Let time pass.
    #[prost(message, tag = "2")]
    Tick(Tick),
    /// Open a session. Its id is the zxid of the command.
    #[prost(message, tag = "3")]
    OpenSession(OpenSession),
    /// End a session: what it holds is released.
    #[prost(message, tag = "4")]
    CloseSession(CloseSession),
    /// Keep sessions alive.
    #[prost(message, tag = "5")]
    KeepAlive(KeepAlive),
    /// Acquire locks, or wait for them.
    #[prost(message, tag = "6")]
    Acquire(Acquire),
    /// Release what a request holds, or cancel it.
    #[prost(message, tag = "7")]
    Release(Release),
    /// Turn an exclusive request into a shared one.
    #[prost(message, tag = "8")]
    Downgrade(Downgrade),
    /// Ask the holders of a lock to release it.
    #[prost(message, tag = "9")]
    Revoke(Revoke),
    /// Take a lock from its holders.
    #[prost(message, tag = "10")]
    Break(Break),
    /// Take numbers from a sequence.
    #[prost(message, tag = "11")]
    TakeNumbers(TakeNumbers),
    /// Add messages to a queue.
    #[prost(message, tag = "12")]
    Enqueue(Enqueue),
    /// Consume a queue.
    #[prost(message, tag = "13")]
    Join(Join),
    /// Consume a queue no longer.
    #[prost(message, tag = "14")]
    Leave(Leave),
    /// Give slots of a queue back.
    #[prost(message, tag = "15")]
    Yield(Yield),
    /// Say what became of messages.
    #[prost(message, tag = "16")]
    Settle(Settle),
    /// Enqueue dead letters again, or drop them.
    #[prost(message, tag = "17")]
    TakeDead(TakeDead),
    /// Drop messages of a queue that is not consumed.
    #[prost(message, tag = "18")]
    Purge(Purge),
    /// Propose a generation of the routes.
    #[prost(message, tag = "19")]
    Propose(Propose),
    /// Serve routes: generations are prepared by this session.
    #[prost(message, tag = "20")]
    ServeRoutes(ServeRoutes),
    /// A generation is prepared, or cannot be.
    #[prost(message, tag = "21")]
    Prepared(Prepared),
    /// Take units of a budget.
    #[prost(message, tag = "22")]
    Spend(Spend),
    /// Store the result of a message, and release the lock of its key.
    #[prost(message, tag = "23")]
    Remember(Remember),
    /// End the stage of a generation.
    #[prost(message, tag = "24")]
    Withdraw(Withdraw),
}

/// Lets what is due expire. Only the leader proposes it.
#[derive(Clone, PartialEq, Message)]
pub struct Tick {
    /// The epoch in which it was proposed; without effect in any other.
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
}

/// Opens a session.
#[derive(Clone, PartialEq, Message)]
pub struct OpenSession {
    /// It expires this many milliseconds after it was last kept alive.
    #[prost(uint64, tag = "1")]
    pub ttl_ms: u64,
    /// Who it belongs to, for operators.
    #[prost(string, tag = "2")]
    pub label: String,
}

/// Ends a session.
#[derive(Clone, PartialEq, Message)]
pub struct CloseSession {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
}

/// Keeps sessions alive. The answer contains those that do not exist.
#[derive(Clone, PartialEq, Message)]
pub struct KeepAlive {
    /// The sessions.
    #[prost(uint64, repeated, tag = "1")]
    pub sessions: Vec<u64>,
}

/// Acquires all of some locks at once.
#[derive(Clone, PartialEq, Message)]
pub struct Acquire {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the request. If it is repeated, it is the same request.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// The locks.
    #[prost(message, repeated, tag = "3")]
    pub claims: Vec<Claim>,
    /// How long to wait, in milliseconds: 0 to be refused at once, absent to wait for ever.
    #[prost(uint64, optional, tag = "4")]
    pub wait_ms: Option<u64>,
    /// How long the locks may be held, in milliseconds; absent for as long as the session lives.
    #[prost(uint64, optional, tag = "5")]
    pub hold_ms: Option<u64>,
    /// How long the locks stay closed if they are lost while they are held, in milliseconds.
    #[prost(uint64, tag = "6")]
    pub delay_ms: u64,
    /// Who acquires it within the session; see `reentrant`.
    #[prost(string, tag = "7")]
    pub owner: String,
    /// If the same owner in the same session holds the one lock, it is granted at once, with the same token.
    #[prost(bool, tag = "8")]
    pub reentrant: bool,
    /// What operators see.
    #[prost(string, tag = "9")]
    pub metadata: String,
    /// Take the locks from their holders, ahead of all that wait, for this reason.
    #[prost(string, optional, tag = "10")]
    pub steal: Option<String>,
    /// Distinguishes callers that repeat the request: a release can be that of one of them. 0 if there is only one.
    #[prost(uint64, tag = "11")]
    pub attempt: u64,
}

/// A lock to acquire.
#[derive(Clone, PartialEq, Message)]
pub struct Claim {
    /// Its name.
    #[prost(string, tag = "1")]
    pub lock: String,
    /// How to acquire it.
    #[prost(oneof = "Mode", tags = "2, 3, 4")]
    pub mode: Option<Mode>,
}

/// How a lock is acquired.
#[derive(Clone, PartialEq, Oneof)]
pub enum Mode {
    /// Alone.
    #[prost(message, tag = "2")]
    Exclusive(Exclusive),
    /// Together with others that share it.
    #[prost(message, tag = "3")]
    Shared(Shared),
    /// One of this many permits, which must be the same for all.
    #[prost(uint32, tag = "4")]
    PermitOf(u32),
}

/// See [`Mode::Exclusive`].
#[derive(Clone, PartialEq, Message)]
pub struct Exclusive {}

/// See [`Mode::Shared`].
#[derive(Clone, PartialEq, Message)]
pub struct Shared {}

/// Releases what a request holds, or cancels it. A request that has not arrived yet will be refused.
#[derive(Clone, PartialEq, Message)]
pub struct Release {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the request.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// Without effect if another caller has repeated the request since; 0 to release it in any case.
    #[prost(uint64, tag = "3")]
    pub attempt: u64,
}

/// Turns an exclusive request that holds its locks into a shared one. It keeps its token.
#[derive(Clone, PartialEq, Message)]
pub struct Downgrade {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the request.
    #[prost(uint64, tag = "2")]
    pub number: u64,
}

/// Asks the holders of a lock to release it.
#[derive(Clone, PartialEq, Message)]
pub struct Revoke {
    /// The lock.
    #[prost(string, tag = "1")]
    pub lock: String,
    /// Why, for the holders.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// Takes a lock from its holders. The next waiting request is granted it.
#[derive(Clone, PartialEq, Message)]
pub struct Break {
    /// The lock.
    #[prost(string, tag = "1")]
    pub lock: String,
    /// Who does it, and why: for the holders and operators.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// Takes consecutive numbers from a sequence.
#[derive(Clone, PartialEq, Message)]
pub struct TakeNumbers {
    /// The name of the sequence; it begins with 1.
    #[prost(string, tag = "1")]
    pub sequence: String,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// Adds messages to a queue, in this order. Each is accepted or refused on its own.
#[derive(Clone, PartialEq, Message)]
pub struct Enqueue {
    /// The session of the producer.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of this command among those of the session to this queue. If the last one is repeated, its answer is
    /// repeated, and nothing is enqueued.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// The name of the queue.
    #[prost(string, tag = "3")]
    pub queue: String,
    /// The messages.
    #[prost(message, repeated, tag = "4")]
    pub messages: Vec<NewMessage>,
}

/// A message to enqueue.
#[derive(Clone, PartialEq, Message)]
pub struct NewMessage {
    /// Messages of the same key are delivered one after another, in the order of the log. If it is empty, the message has no
    /// order.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it contains.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: bytes::Bytes,
    /// It takes its position after this time, in milliseconds.
    #[prost(uint64, tag = "3")]
    pub delay_ms: u64,
    /// A message with the same one within the window of an earlier message is a duplicate of it; empty if there are none.
    #[prost(string, tag = "4")]
    pub id: String,
    /// The length of that window, in milliseconds.
    #[prost(uint64, tag = "5")]
    pub window_ms: u64,
    /// The session is notified of the result of the message.
    #[prost(bool, tag = "6")]
    pub is_watched: bool,
    /// A digest of what the id stands for. It is repeated for duplicates, so that their producer can tell another message of the
    /// same id from them.
    #[prost(fixed64, tag = "7")]
    pub digest: u64,
}

/// Consumes a queue: the session is granted some of its slots.
#[derive(Clone, PartialEq, Message)]
pub struct Join {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The name of the queue.
    #[prost(string, tag = "2")]
    pub queue: String,
}

/// Consumes a queue no longer: the session is granted no slot any more, and gives back those that it has once the messages are settled
/// that it has begun.
#[derive(Clone, PartialEq, Message)]
pub struct Leave {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The name of the queue.
    #[prost(string, tag = "2")]
    pub queue: String,
}

/// Gives slots back that were recalled. Those that are not held with these tokens are passed over.
#[derive(Clone, PartialEq, Message)]
pub struct Yield {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The name of the queue.
    #[prost(string, tag = "2")]
    pub queue: String,
    /// The slots.
    #[prost(message, repeated, tag = "3")]
    pub slots: Vec<HeldSlot>,
}

/// A slot that is held.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct HeldSlot {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The token of the holder.
    #[prost(uint64, tag = "2")]
    pub token: u64,
}

/// Says what became of messages of a queue, in this order. Each is accepted or refused on its own.
#[derive(Clone, PartialEq, Message)]
pub struct Settle {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The name of the queue.
    #[prost(string, tag = "2")]
    pub queue: String,
    /// The messages.
    #[prost(message, repeated, tag = "3")]
    pub settlements: Vec<Settlement>,
}

/// What became of a message.
#[derive(Clone, PartialEq, Message)]
pub struct Settlement {
    /// Its key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its position.
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// How often it was attempted before. A settlement of an earlier attempt has no effect.
    #[prost(uint32, tag = "3")]
    pub attempts: u32,
    /// The token of its slot.
    #[prost(uint64, tag = "4")]
    pub token: u64,
    /// What became of it.
    #[prost(oneof = "Fate", tags = "5, 6, 7")]
    pub fate: Option<Fate>,
}

/// The result of a delivery.
#[derive(Clone, PartialEq, Oneof)]
pub enum Fate {
    /// It was processed, with this result for a session that watches it.
    #[prost(bytes = "bytes", tag = "5")]
    Done(bytes::Bytes),
    /// It is delivered again, before those behind it.
    #[prost(message, tag = "6")]
    Retry(Retry),
    /// It becomes a dead letter.
    #[prost(message, tag = "7")]
    Dead(Dead),
}

/// See [`Fate::Retry`].
#[derive(Clone, PartialEq, Message)]
pub struct Retry {
    /// After this time, in milliseconds.
    #[prost(uint64, tag = "1")]
    pub delay_ms: u64,
    /// The message may be the reason why it failed, so that the attempt counts as a failure of it.
    #[prost(bool, tag = "2")]
    pub is_failure: bool,
}

/// See [`Fate::Dead`].
#[derive(Clone, PartialEq, Message)]
pub struct Dead {
    /// Why, for operators.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The result for a session that watches it.
    #[prost(bytes = "bytes", tag = "2")]
    pub result: bytes::Bytes,
}

/// Removes dead letters of a queue. The answer is the number of those that there were.
#[derive(Clone, PartialEq, Message)]
pub struct TakeDead {
    /// The name of the queue.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Their positions.
    #[prost(uint64, repeated, tag = "2")]
    pub positions: Vec<u64>,
    /// They are enqueued again, at the end of their lanes.
    #[prost(bool, tag = "3")]
    pub is_replayed: bool,
}

/// Drops messages of a queue that has no consumers, up to a number. The answer is the number of those dropped.
#[derive(Clone, PartialEq, Message)]
pub struct Purge {
    /// The name of the queue.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// The maximum number.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// Proposes a generation of the routes. The answer is its number.
#[derive(Clone, PartialEq, Message)]
pub struct Propose {
    /// The session of the instance that proposes it.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the generation in force that it is based on; 0 if there is none.
    #[prost(uint64, tag = "2")]
    pub base: u64,
    /// All its files.
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<RouteFile>,
    /// Who proposes it.
    #[prost(string, tag = "4")]
    pub author: String,
    /// Why.
    #[prost(string, tag = "5")]
    pub comment: String,
    /// How long instances may take to prepare it, in milliseconds.
    #[prost(uint64, tag = "6")]
    pub timeout_ms: u64,
    /// The labels of the sessions of the instances that serve it first; none for all instances.
    #[prost(string, repeated, tag = "7")]
    pub stage: Vec<String>,
}

/// Ends the stage of a generation.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Withdraw {
    /// The number of the generation.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

/// A file of a generation.
#[derive(Clone, PartialEq, Message)]
pub struct RouteFile {
    /// Its path, relative to the folder of the settings, with `/` between names.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Its content.
    #[prost(bytes = "bytes", tag = "2")]
    pub content: bytes::Bytes,
}

/// Serves routes: a generation is put into force only once this session has prepared it.
#[derive(Clone, PartialEq, Message)]
pub struct ServeRoutes {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
}

/// Says that an instance has prepared a generation, or cannot.
#[derive(Clone, PartialEq, Message)]
pub struct Prepared {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the generation.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// Why it cannot; empty if it has.
    #[prost(string, tag = "3")]
    pub problem: String,
}

/// Takes units of a budget: as many as there are, up to a number. A budget that was not used before is full.
#[derive(Clone, PartialEq, Message)]
pub struct Spend {
    /// The name of the budget.
    #[prost(string, tag = "1")]
    pub budget: String,
    /// Units that are added in `per_ms`. With another rate than before, the budget lacks as many units as before.
    #[prost(uint64, tag = "2")]
    pub count: u64,
    /// See `count`, in milliseconds.
    #[prost(uint64, tag = "3")]
    pub per_ms: u64,
    /// The units of a full budget.
    #[prost(uint64, tag = "4")]
    pub burst: u64,
    /// The maximum number of units to take.
    #[prost(uint64, tag = "5")]
    pub up_to: u64,
}

/// Stores the result of a message that was processed, and releases what the request holds. Without effect unless the request still holds its locks.
#[derive(Clone, PartialEq, Message)]
pub struct Remember {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The number of the request that holds the lock of the key. If the command is repeated, it has no further effect.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// The group of the key.
    #[prost(string, tag = "3")]
    pub group: String,
    /// The key.
    #[prost(string, tag = "4")]
    pub key: String,
    /// A digest of the message, which is returned with the result.
    #[prost(fixed64, tag = "5")]
    pub digest: u64,
    /// How long it is remembered, in milliseconds.
    #[prost(uint64, tag = "6")]
    pub window_ms: u64,
    /// The number of keys of the group that are remembered.
    #[prost(uint64, tag = "7")]
    pub keys_max: u64,
    /// The result.
    #[prost(bytes = "bytes", tag = "8")]
    pub result: bytes::Bytes,
}
