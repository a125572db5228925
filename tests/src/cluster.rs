//! Clusters as processes: instances that are killed, frozen and cut off, clients that note what they see, and whether one order explains it.

mod clients;
mod disk;
mod instance;
mod namespaces;
mod rounds;
mod ways;

pub use clients::Clients;
pub use disk::Disk;
pub use instance::{Instance, Line, leader, wait_until_all_follow};
pub use namespaces::Namespaces;
pub use rounds::{Fault, Report, Rounds};
pub use ways::{Proxies, Ways};
