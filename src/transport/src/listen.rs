//! Taking an address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crossdock_settings::{Reader, Spanned};

/// Connections that the kernel holds until they are taken.
const BACKLOG: u32 = 1024;

/// The address of a listener in its settings; nothing where an error was reported.
pub fn bind_address(bind: &Spanned<String>, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let address = bind.value.parse().ok();
    if address.is_none() {
        let message = format!("`{}` is not an address to listen on", bind.value);
        let help = "write an IP address and a port, such as `127.0.0.1:8080` or `0.0.0.0:8080`";
        reader.error("address", bind.span, message, help);
    }
    address
}

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
