//! The gateway: actors, data path, process state, admin API, wiring. The only crate that knows all parts.
//!
//! | module | contents |
//! | --- | --- |
//! | `wiring` | the composition root: start, reload, drain, stop |
//! | `config` | reads and checks `crossdock.yaml` and the route files |
//! | `generation` | one complete version of the routes, and the swap to the next |
//! | `external` | an engine of locks and sequences outside of the gateway |
//! | `error` | errors of loading settings and putting them into force |
//! | `actors` | guardian, hosts, routes: the control plane |
//! | `data` | ingress, steps, service shards: the data path |
//! | `process` | state that outlives generations and takes part in decisions |
//! | `stats` | counters, and figures derived from them |
//! | `admin` | liveness, readiness, metrics, state of routes and services |

mod actors;
mod admin;
mod config;
mod data;
mod error;
mod external;
mod generation;
mod host;
mod process;
mod pushed;
mod stats;
mod wiring;

pub use config::{
    ClusterConfig, Config, ListenerConfig, LogFormat, LogSettings, PushedFiles, adapters, files_to_push, load_config,
    load_config_with, settings_schema,
};
pub use error::{ApplyError, LoadError};
pub use host::SystemHost;
pub use wiring::{Gateway, PlanInForce, Running, read_folder, read_settings};
