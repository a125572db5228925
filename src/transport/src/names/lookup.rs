//! One lookup of a name: `/etc/hosts` first, then the name servers of `/etc/resolv.conf`.
//!
//! Both files are read for each lookup, so that changes to them need no restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_resolver::config::ResolveHosts;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// Limit on one lookup including retries.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Time to live of entries of `/etc/hosts`, which have none of their own.
const HOSTS_FILE_TTL: Duration = Duration::from_secs(10);

/// Addresses, and when they expire.
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) valid_until: Instant,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("not a valid DNS name")]
    NotAName,
    #[error("cannot use /etc/resolv.conf: {0}")]
    Configuration(NetError),
    #[error("the name servers timed out")]
    TimedOut,
    #[error("the name does not exist")]
    NoName,
    #[error("the name has no address")]
    NoAddress,
    #[error("the answer has no usable address")]
    NoUsableAddress,
    #[error("{0}")]
    Other(NetError),
}

impl From<NetError> for LookupError {
    fn from(problem: NetError) -> Self {
        match problem {
            problem if problem.is_nx_domain() => Self::NoName,
            problem if is_no_records(&problem) => Self::NoAddress,
            NetError::Timeout => Self::TimedOut,
            other => Self::Other(other),
        }
    }
}

/// All usable IPv4 and IPv6 addresses of a name that this machine has a route to. `known` is the previous answer: if the lookup of one
/// address family fails, its previous addresses are kept.
///
/// # Errors
/// Why there is no address.
pub(super) async fn look_up(host: &str, known: &[IpAddr]) -> Result<Answer, LookupError> {
    let lookup = async {
        match from_hosts_file(host) {
            Some(addresses) => Ok(Answer { addresses, valid_until: Instant::now() + HOSTS_FILE_TTL }),
            None => from_name_servers(host, known).await,
        }
    };
    let mut answer = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(answer) => answer?,
        Err(_) => return Err(LookupError::TimedOut),
    };
    answer.addresses = usable(answer.addresses, has_route);
    if answer.addresses.is_empty() {
        return Err(LookupError::NoUsableAddress);
    }
    Ok(answer)
}

fn from_hosts_file(host: &str) -> Option<Vec<IpAddr>> {
    let (hosts, name) = (Hosts::from_system().ok()?, parse_name(host)?);
    let of_type = |of_type| hosts.lookup_static_host(&Query::query(name.clone(), of_type));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
    let addresses: Vec<IpAddr> = found
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Parses a host name. Accepts underscores, which RFC 952 forbids but which are in use.
fn parse_name(host: &str) -> Option<Name> {
    Name::from_ascii(host).or_else(|_| Name::from_utf8(host)).ok()
}

async fn from_name_servers(host: &str, known: &[IpAddr]) -> Result<Answer, LookupError> {
    let name = parse_name(host).ok_or(LookupError::NotAName)?;
    let mut builder = TokioResolver::builder_tokio().map_err(LookupError::Configuration)?;
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    // This resolver looks up each record once.
    options.cache_size = 0;
    let resolver = builder.build().map_err(LookupError::Configuration)?;
    let found = resolver.lookup_ip(name).await?;
    let (mut addresses, valid_until): (Vec<IpAddr>, _) = (found.iter().collect(), found.valid_until());
    // If a family is missing, its lookup may have failed: `lookup_ip` succeeds if one of the two does.
    let missing = [(RecordType::A, true), (RecordType::AAAA, false)]
        .into_iter()
        .find(|(_, is_ipv4)| !addresses.iter().any(|address| address.is_ipv4() == *is_ipv4));
    if let Some((record_type, is_ipv4)) = missing {
        let kept = || known.iter().filter(|address| address.is_ipv4() == is_ipv4);
        if kept().next().is_some() {
            let retried = resolver.lookup(found.query().name().clone(), record_type).await;
            if retried.is_err_and(|problem| !is_no_records(&problem)) {
                addresses.extend(kept());
            }
        }
    }
    Ok(Answer { addresses, valid_until })
}

/// Whether the name server answered that there is no such record.
fn is_no_records(problem: &NetError) -> bool {
    matches!(problem, NetError::Dns(DnsError::NoRecordsFound(_)))
}

/// Keeps the addresses that a host can have and that are routed; if none is routed, keeps all.
fn usable(addresses: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let is_host = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let addresses: Vec<IpAddr> = addresses.into_iter().map(|address| address.to_canonical()).filter(is_host).collect();
    let routed: Vec<IpAddr> = addresses.iter().copied().filter(|address| has_route(*address)).collect();
    if routed.is_empty() { addresses } else { routed }
}

/// Whether this machine has a route to an address (RFC 6724 §6 rule 1). Connecting a UDP socket sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.connect(SocketAddr::new(address, 9))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn unrouted_addresses_are_dropped_unless_there_are_no_others() {
        let both = ips(&["10.0.0.1", "2001:db8::1"]);
        assert_eq!(usable(both.clone(), |address| address.is_ipv4()), ips(&["10.0.0.1"]));
        assert_eq!(usable(both.clone(), |_| false), both);
        assert_eq!(usable(both.clone(), |_| true), both);
    }

    #[test]
    fn addresses_that_no_host_can_have_are_dropped() {
        let odd = ips(&["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:10.0.0.1"]);
        assert_eq!(usable(odd, |_| true), ips(&["10.0.0.1"]));
    }

    #[test]
    fn names_may_contain_underscores() {
        assert!(
            ["orders", "my_service", "_http._tcp.orders.test", "xn--bcher-kva.test"]
                .into_iter()
                .all(|host| parse_name(host).is_some())
        );
        assert!(parse_name(&"a".repeat(64)).is_none());
    }

    #[test]
    fn the_hosts_file_is_read() {
        let addresses = from_hosts_file("localhost").expect("every machine has it");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert_eq!(from_hosts_file("no-such-name"), None);
    }
}
