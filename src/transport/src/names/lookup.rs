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

/// For one lookup with all its tries.
const TIME_MAX: Duration = Duration::from_secs(15);
/// How long an entry of `/etc/hosts` holds: it does not say.
const HOSTS_FILE_TIME: Duration = Duration::from_secs(10);

/// Addresses, and how long they hold.
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) valid_until: Instant,
}

/// All usable addresses of a name, IPv4 and IPv6, except those that this machine has no route to. `known` is the previous answer: if the
/// lookup of one family fails, its previous addresses are kept.
///
/// # Errors
/// Why there is no address, for people.
pub(super) async fn look_up(host: &str, known: &[IpAddr]) -> Result<Answer, String> {
    let looked_up = async {
        match of_hosts_file(host) {
            Some(addresses) => Ok(Answer { addresses, valid_until: Instant::now() + HOSTS_FILE_TIME }),
            None => of_name_servers(host, known).await,
        }
    };
    let mut answer = match tokio::time::timeout(TIME_MAX, looked_up).await {
        Ok(answer) => answer?,
        Err(_) => return Err("the name servers do not answer in time".into()),
    };
    answer.addresses = usable(answer.addresses, has_route);
    if answer.addresses.is_empty() {
        return Err("the answer has no address that can be used".into());
    }
    Ok(answer)
}

fn of_hosts_file(host: &str) -> Option<Vec<IpAddr>> {
    let (hosts, name) = (Hosts::from_system().ok()?, name_of(host)?);
    let of_type = |of_type| hosts.lookup_static_host(&Query::query(name.clone(), of_type));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
    let addresses: Vec<IpAddr> = found
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// The name of a host. Underscores are no letters of host names (RFC 952), and are in use all the same.
fn name_of(host: &str) -> Option<Name> {
    Name::from_ascii(host).or_else(|_| Name::from_utf8(host)).ok()
}

async fn of_name_servers(host: &str, known: &[IpAddr]) -> Result<Answer, String> {
    let name = name_of(host).ok_or("it cannot be a name in DNS")?;
    let mut builder =
        TokioResolver::builder_tokio().map_err(|problem| format!("/etc/resolv.conf cannot be used: {problem}"))?;
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    // Nothing is looked up twice in the life of this resolver.
    options.cache_size = 0;
    let resolver = builder.build().map_err(|problem| format!("/etc/resolv.conf cannot be used: {problem}"))?;
    let found = resolver.lookup_ip(name).await.map_err(|problem| explain(&problem))?;
    let (mut addresses, valid_until): (Vec<IpAddr>, _) = (found.iter().collect(), found.valid_until());
    // A missing family may be a failed lookup only.
    let missing = [(RecordType::A, true), (RecordType::AAAA, false)]
        .into_iter()
        .find(|(_, is_ipv4)| !addresses.iter().any(|address| address.is_ipv4() == *is_ipv4));
    if let Some((record_type, is_ipv4)) = missing {
        let kept = || known.iter().filter(|address| address.is_ipv4() == is_ipv4);
        if kept().next().is_some() {
            let again = resolver.lookup(found.query().name().clone(), record_type).await;
            if again.is_err_and(|problem| !is_answer(&problem)) {
                addresses.extend(kept());
            }
        }
    }
    Ok(Answer { addresses, valid_until })
}

/// Whether a name server said that there is no such address.
fn is_answer(problem: &NetError) -> bool {
    matches!(problem, NetError::Dns(DnsError::NoRecordsFound(_)))
}

fn explain(problem: &NetError) -> String {
    match problem {
        problem if problem.is_nx_domain() => "there is no such name".into(),
        problem if is_answer(problem) => "the name has no address".into(),
        NetError::Timeout => "the name servers do not answer in time".into(),
        other => other.to_string(),
    }
}

/// The addresses that a service may have, without those that there is no route to; all of them where there is a route to none.
fn usable(addresses: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let of_one_host = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let addresses: Vec<IpAddr> =
        addresses.into_iter().map(|address| address.to_canonical()).filter(of_one_host).collect();
    let routed: Vec<IpAddr> = addresses.iter().copied().filter(|address| has_route(*address)).collect();
    if routed.is_empty() { addresses } else { routed }
}

/// Whether this machine has a route to an address: a connected UDP socket sends nothing (RFC 6724 §6 rule 1 avoids such destinations).
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
    fn addresses_without_a_route_are_left_out_unless_there_are_no_others() {
        let both = ips(&["10.0.0.1", "2001:db8::1"]);
        assert_eq!(usable(both.clone(), |address| address.is_ipv4()), ips(&["10.0.0.1"]));
        assert_eq!(usable(both.clone(), |_| false), both);
        assert_eq!(usable(both.clone(), |_| true), both);
    }

    #[test]
    fn what_is_no_host_is_left_out() {
        let odd = ips(&["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:10.0.0.1"]);
        assert_eq!(usable(odd, |_| true), ips(&["10.0.0.1"]));
    }

    #[test]
    fn names_with_underscores_are_names() {
        assert!(
            ["orders", "my_service", "_http._tcp.orders.test", "xn--bcher-kva.test"]
                .into_iter()
                .all(|host| name_of(host).is_some())
        );
        assert!(name_of(&"a".repeat(64)).is_none());
    }

    #[test]
    fn the_hosts_file_is_read() {
        let addresses = of_hosts_file("localhost").expect("every machine has it");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert_eq!(of_hosts_file("a-name-that-nobody-has"), None);
    }
}
