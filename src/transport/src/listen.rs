//! Taking an address.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds until they are taken.
const BACKLOG: u32 = 1024;

/// Listens on an address.
///
/// # Errors
/// Where the address is taken or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
