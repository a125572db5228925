//! Tools for testing adapters and the gateway.
//!
//! [`contract`] states the rules of the ports as a suite of checks that every adapter runs against itself. [`memory`] is an adapter that needs no
//! network.

pub mod contract;
pub mod memory;
