//! The AMQP 0.9.1 adapter.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opening listeners and ports |
//! | `broker` | connections: one for publishing and one for consuming, made anew for ever |
//! | `frames` | what the broker sends, filtered ahead of lapin: unreadable properties, returned messages |
//! | `publisher` | confirmed publishing, and replies to requests |
//! | `inbound` | queues: from a delivery, through the ingress, to its settlement |
//! | `outbound` | a message, confirmed by the broker or answered by a reply |
//! | `dead_letters` | queues of messages that were set aside, for those who look after them |
//! | `mapping` | canonical messages to and from properties, headers and bodies |
//! | `settle` | outcome to acknowledgement, another try or dead letter |

mod adapter;
mod broker;
mod config;
mod dead_letters;
mod error;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inbound;
mod mapping;
mod outbound;
mod publisher;
mod settle;

pub use adapter::AmqpAdapter;
