//! The data path: one message from an adapter to services and back, all on one data arbiter.
//!
//! ```text
//! Ingress::admit ─ route ─▶ Exchange::dispatch ─ steps ─▶ credit ─ one hop ─▶ ServiceShard ─ task ─▶ Outbound
//!                                   ▲                                             │
//!                                   └───────────────── reply port ────────────────┘
//! ```

mod counted;
mod ingress;
mod keyed;
mod picker;
mod shard;
mod shards;
mod steps;

#[cfg(test)]
mod tests;

pub(crate) use ingress::Opener;
pub(crate) use keyed::Keyed;
pub(crate) use steps::services_of;
