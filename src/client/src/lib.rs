//! A client of the API of a cluster: locks, sessions, sequences and queues.
//!
//! ```no_run
//! # async fn example() -> Result<(), crossdock_client::Error> {
//! use crossdock_client::{Client, LockOptions, Options};
//!
//! let options = Options { token: std::env::var("API_TOKEN").ok(), ..Options::default() };
//! let client = Client::new(&["http://127.0.0.1:7200", "http://127.0.0.1:7210"], &options)?;
//! let mut lock = client.lock("stock/7", LockOptions::default()).await?;
//! let token = lock.token();
//! tokio::select! {
//!     reason = lock.lost() => println!("stop: {reason}"),
//!     () = write(token) => {}
//! }
//! # Ok(()) }
//! # async fn write(token: u64) {}
//! ```
//!
//! Any instance serves any call. A call that an instance cannot serve at the moment is made at the next one, if it may be repeated.
//!
//! | module | contents |
//! | --- | --- |
//! | `client` | endpoints, errors, sequences, the state of the cluster |
//! | `lock` | a lock that is held by a call, until it is dropped |
//! | `session` | a session that outlives the failure of an instance, with its locks |
//! | `queue` | adding to queues, and consuming them |

mod client;
mod lock;
mod queue;
mod session;

pub use client::{Client, Error, Options};
pub use crossdock_api as api;
pub use lock::{Lock, LockOptions};
pub use queue::{Consumer, Delivery, Message};
pub use session::{Held, Session};
