//! What carries messages between instances, and can be cut.

use std::net::SocketAddr;

use super::Fault;
use crate::{Network, Proxy};

/// The ways between instances.
pub trait Ways {
    /// Does to the ways what the fault says, where it says something of them.
    fn set(&self, leader: usize, fault: Fault);

    /// All ways are whole again.
    fn heal(&self);
}

/// Proxies of 127.0.0.1 between each two instances: the one with the higher number dials the other.
pub struct Proxies(Vec<(usize, usize, Proxy)>);

impl Proxies {
    /// Proxies in front of instances at these addresses.
    #[must_use]
    pub fn start(addresses: &[SocketAddr]) -> Self {
        let pairs = (0..addresses.len()).flat_map(|low| (low + 1..addresses.len()).map(move |high| (low, high)));
        Self(pairs.map(|(low, high)| (low, high, Proxy::start(addresses[low]))).collect())
    }

    /// Where an instance finds another.
    #[must_use]
    pub fn address(&self, of: usize, seen_by: usize, real: SocketAddr) -> SocketAddr {
        let proxy = self.0.iter().find(|(low, high, _)| (*low, *high) == (of, seen_by));
        proxy.map_or(real, |(_, _, proxy)| proxy.address)
    }
}

impl Ways for Proxies {
    fn set(&self, leader: usize, fault: Fault) {
        for (low, high, proxy) in &self.0 {
            if *low != leader && *high != leader {
                continue;
            }
            let is_server = *low == leader;
            proxy.set(match fault {
                Fault::CutLeader | Fault::CutPair => Network::Cut,
                // What the leader says goes back where it was dialled, and forth where it dialled.
                Fault::MuteLeader if is_server => Network::CutBack,
                Fault::DeafLeader if !is_server => Network::CutBack,
                Fault::MuteLeader | Fault::DeafLeader => Network::CutForth,
                _ => return,
            });
            if fault == Fault::CutPair {
                return;
            }
        }
    }

    fn heal(&self) {
        self.0.iter().for_each(|(_, _, proxy)| proxy.set(Network::Whole));
    }
}
