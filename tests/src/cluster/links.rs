//! The links between instances, which faults can cut.

use std::net::SocketAddr;

use super::Fault;
use crate::{Network, Proxy};

/// The links between instances.
pub trait Links {
    /// Applies a fault; faults that do not concern links change nothing.
    fn inject(&self, leader: usize, fault: Fault);

    /// Restores all links.
    fn heal(&self);
}

/// Proxies on 127.0.0.1 between each pair of instances: the one with the higher number dials the other.
pub struct Proxies(Vec<(usize, usize, Proxy)>);

impl Proxies {
    /// Starts proxies in front of the instances at these addresses.
    #[must_use]
    pub fn start(addresses: &[SocketAddr]) -> Self {
        let pairs = (0..addresses.len()).flat_map(|low| (low + 1..addresses.len()).map(move |high| (low, high)));
        Self(pairs.map(|(low, high)| (low, high, Proxy::start(addresses[low]))).collect())
    }

    /// The address of instance `of` as seen by instance `seen_by`.
    #[must_use]
    pub fn address(&self, of: usize, seen_by: usize, real: SocketAddr) -> SocketAddr {
        let proxy = self.0.iter().find(|(low, high, _)| (*low, *high) == (of, seen_by));
        proxy.map_or(real, |(_, _, proxy)| proxy.address)
    }
}

impl Links for Proxies {
    fn inject(&self, leader: usize, fault: Fault) {
        for (low, high, proxy) in &self.0 {
            if *low != leader && *high != leader {
                continue;
            }
            let is_server = *low == leader;
            proxy.set(match fault {
                Fault::CutLeader | Fault::CutPair => Network::Cut,
                // A connection that the leader accepted carries its messages back to the dialler; one that it dialled carries them forth.
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
