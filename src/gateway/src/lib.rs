//! The process: actors, data path, admin, command line. The only place where all parts meet.
//!
//! | module | holds |
//! | --- | --- |
//! | `cli` | the commands |
//! | `wiring` | the one composition root: start, reload, drain, stop |
//! | `config` | `crossdock.yaml` and the route files, read and checked |
//! | `generation` | one version of the routes, whole, and the swap to the next |
//! | `actors` | guardian, hosts, routes: the control plane |
//! | `data` | ingress, steps, service shards: the data path |
//! | `stats` | what is counted, and the formulas over it |
//! | `admin` | liveness, readiness, metrics, routes |
//! | `demo` | sample services |

mod actors;
mod admin;
pub mod cli;
mod config;
mod data;
mod demo;
mod generation;
mod host;
mod process;
mod stats;
mod wiring;

pub use config::{Config, adapters, load_config};
pub use wiring::{Gateway, RunError, Running};
