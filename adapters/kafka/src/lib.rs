//! The Kafka adapter, on librdkafka.
//!
//! | module | content |
//! | --- | --- |
//! | `config` | settings as written and as checked |
//! | `adapter` | opens listeners and services |
//! | `client` | what all clients of librdkafka share: settings, logs, errors |
//! | `inbound` | consumes topics: from a record, through the ingress, to its offset |
//! | `producer` | the idempotent producer of the process for each cluster |
//! | `outbound` | sends a message and waits until the brokers have stored it, or for its reply |
//! | `requests` | the requests of a data arbiter that wait for their replies |
//! | `replies` | receives the replies to the requests of the process |
//! | `correlation` | the headers that tie a reply to its request |
//! | `dead_letters` | dead letter topics, for the commands that list and replay them |
//! | `transaction` | transactions of records and offsets |
//! | `declare` | creates topics |
//! | `shared` | what several listeners and services share |
//! | `registry` | schema registries: the types of values |
//! | `received` | records as received |
//! | `mapping` | canonical messages to and from records |

mod adapter;
mod client;
mod config;
mod correlation;
mod dead_letters;
mod declare;
mod error;
mod inbound;
mod mapping;
mod outbound;
mod producer;
mod received;
mod registry;
mod replies;
mod requests;
mod shared;
mod transaction;

pub use adapter::KafkaAdapter;
