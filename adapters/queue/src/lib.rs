//! The adapter of the queues that the instances of a cluster share.
//!
//! It has no connections and no listeners: services add messages through a port of the gateway ([`Enqueue`](crossdock_ports::Enqueue)),
//! and the gateway delivers messages to routes itself, on the instance that holds the slots of their keys.
//!
//! | module | content |
//! | --- | --- |
//! | `adapter` | reads entries and services |
//! | `config` | settings as written |
//! | `checked` | settings as checked |
//! | `outbound` | adds messages |

mod adapter;
mod checked;
mod config;
mod outbound;

pub use adapter::QueueAdapter;
