//! The AMQP 0.9.1 adapter.
//!
//! | module | content |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opens listeners and services |
//! | `broker` | connections, one for each purpose; reconnects forever |
//! | `frames` | filters the frames between lapin and the broker: unreadable properties, returned messages, closed channels |
//! | `publisher` | publishing with confirms; replies to requests |
//! | `inbound` | consumes queues: from a delivery, through the ingress, to its settlement |
//! | `outbound` | sends a message with confirm, or a request with reply |
//! | `dead_letters` | lists, replays and drops dead letters |
//! | `mapping` | canonical messages to and from properties, headers and bodies |
//! | `reason` | the reasons of faults by which it decides |

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
mod reason;

pub use adapter::AmqpAdapter;
