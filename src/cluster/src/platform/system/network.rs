//! Connections between instances.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpSocket;
pub(crate) use tokio::net::{TcpListener as Listener, TcpStream as Stream};

/// A socket that listens, outside of any runtime.
pub(crate) type Bound = std::net::TcpListener;

/// Listens at an address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Bound> {
    let bound = std::net::TcpListener::bind(address)?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// Starts to accept connections in the current runtime.
pub(crate) fn accept_from(bound: Bound) -> io::Result<Listener> {
    Listener::from_std(bound)
}

/// Opens a connection, from this address if it is given.
pub(crate) async fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Stream> {
    let Some(from) = from else { return Stream::connect(to).await };
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Opens a connection to a host.
pub(crate) async fn connect_to_host(host: &str, port: u16) -> io::Result<Stream> {
    Stream::connect((host, port)).await
}
