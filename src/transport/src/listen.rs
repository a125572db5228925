//! Binding listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crossdock_settings::{Reader, Spanned};

/// Connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Parses the address of a listener. Reports an error and returns `None` if it is invalid.
pub fn bind_address(bind: &Spanned<String>, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let address = bind.value.parse().ok();
    if address.is_none() {
        let message = format!("`bind` must be an IP address and a port, not `{}`", bind.value);
        let help = "write `127.0.0.1:8080` or `0.0.0.0:8080`";
        reader.error("address", bind.span, message, help);
    }
    address
}

/// Binds a listener to an address.
///
/// # Errors
/// If the address is in use or not an address of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
