//! Clusters of processes under fault injection: instances are killed, frozen and partitioned while clients record a history, which is then
//! checked for linearizability.

mod clients;
mod disk;
mod instance;
mod links;
mod namespaces;
mod rounds;

pub use clients::Clients;
pub use disk::Disk;
pub use instance::{Instance, LineClient, leader, wait_until_all_follow};
pub use links::{Links, Proxies};
pub use namespaces::Namespaces;
pub use rounds::{Fault, Report, Rounds};
