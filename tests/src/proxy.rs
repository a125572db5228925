//! A TCP proxy that simulates network faults.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// The state of the simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Network {
    /// All data is forwarded.
    Whole,
    /// No data is forwarded; connections stay open.
    Cut,
    /// Data from the server is not forwarded: requests arrive, responses do not.
    CutBack,
    /// Data to the server is not forwarded.
    CutForth,
}

/// A proxy in front of a server; it runs until the test process exits.
pub struct Proxy {
    /// The address that clients connect to.
    pub address: SocketAddr,
    state: Arc<AtomicU8>,
}

impl Proxy {
    /// Starts a proxy that forwards all data.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(AtomicU8::new(Network::Whole as u8));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(server) else { continue };
                // The proxy must not add latency.
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                for (from, to, back) in [(&near, &far, false), (&far, &near, true)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let state = Arc::clone(&shared);
                    std::thread::spawn(move || forward(from, to, back, &state));
                }
            }
        });
        Self { address, state }
    }

    /// Changes the state of the network.
    pub fn set(&self, network: Network) {
        self.state.store(network as u8, Ordering::SeqCst);
    }
}

/// Data held back by a cut is forwarded once the network is whole again, as with TCP retransmission.
fn forward(mut from: TcpStream, mut to: TcpStream, back: bool, state: &AtomicU8) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        loop {
            let state = state.load(Ordering::SeqCst);
            let one_way = if back { Network::CutBack } else { Network::CutForth };
            let held = state == Network::Cut as u8 || state == one_way as u8;
            if !held {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
