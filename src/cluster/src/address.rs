//! Where instances listen for one another.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::platform::network;

/// Maximum lengths of a host name and of its labels (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

/// The address where an instance listens for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A host name, which is resolved for each attempt to connect, and a port. The instance itself listens on all its
    /// addresses, as its name may not be known yet when it starts.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an IP address nor a host name with a port")]
pub struct InvalidAddress;

impl Address {
    /// The IP address, unless it is a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Name { .. } => None,
        }
    }

    /// Listens there.
    pub(crate) fn listen(&self) -> Result<network::Bound, (SocketAddr, io::Error)> {
        let bind = |address: SocketAddr| network::bind(address).map_err(|error| (address, error));
        match self {
            Self::Ip(address) => bind(*address),
            // With IPv6, it takes connections over IPv4 as well.
            Self::Name { port, .. } => bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)))
                .or_else(|_| bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)))),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let port = port.parse().map_err(|_| InvalidAddress)?;
        let is_label = |label: &str| {
            let is_valid = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            is_valid && (1..=LABEL_LEN_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        let labels = host.strip_suffix('.').unwrap_or(host);
        // Otherwise it would be meant as an IPv4 address.
        let has_letter = labels.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()));
        if host.len() > NAME_LEN_MAX || !labels.split('.').all(is_label) || !has_letter {
            return Err(InvalidAddress);
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_address_or_a_host_name_with_a_port() {
        for text in [
            "127.0.0.1:7101",
            "[::1]:7101",
            "localhost:1",
            "gateway-0.gateway.shop.svc.cluster.local:7101",
            "3com.example.:65535",
        ] {
            let address: Address = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(address.to_string(), text);
        }
        let long = format!("{}.example:1", "a".repeat(64));
        for text in [
            "",
            "localhost",
            ":1",
            "host:",
            "host:70000",
            "300.1.1.1:1",
            "10.0.0:1",
            "::1:7101",
            "a..b:1",
            "-a:1",
            "a-:1",
            "a_b:1",
            "http://a:1",
            &long,
        ] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
        }
    }
}
