//! The data path: one message from an adapter to services and back, all on one data arbiter.
//!
//! ```text
//! Ingress::admit ─ route ─▶ Exchange::dispatch ─ policies, steps ─▶ permit ─ one hop ─▶ ServiceShard ─ task ─▶ Outbound
//!                                   ▲                                             │
//!                                   └───────────────── reply port ────────────────┘
//! ```

mod counted;
mod deliver;
mod ingress;
mod picker;
mod policies;
mod reply;
mod shard;
mod shards;
mod steps;

#[cfg(test)]
mod tests;

pub(crate) use deliver::deliver;
pub(crate) use ingress::Opener;
pub(crate) use policies::{Policy, policies_of};
