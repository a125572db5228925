//! A gateway: actors, data path, admin, wiring. The only place where all parts meet.
//!
//! | module | holds |
//! | --- | --- |
//! | `wiring` | the one composition root: start, reload, drain, stop |
//! | `config` | `crossdock.yaml` and the route files, read and checked |
//! | `generation` | one version of the routes, whole, and the swap to the next |
//! | `actors` | guardian, hosts, routes: the control plane |
//! | `data` | ingress, steps, service shards: the data path |
//! | `process` | state that outlives generations and decides something |
//! | `stats` | counters, and the formulas over them |
//! | `cluster_state` | the replicated state of a cluster |
//! | `admin` | liveness, readiness, metrics, routes |

mod actors;
mod admin;
mod cluster_state;
mod config;
mod data;
mod generation;
mod host;
mod process;
mod stats;
mod wiring;

pub use config::{
    Config, ListenerConfig, LogFormat, LogSettings, adapters, load_config, load_config_with, settings_schema,
};
pub use host::SystemHost;
pub use wiring::{Gateway, PlanInForce, RunError, Running, read_folder};
