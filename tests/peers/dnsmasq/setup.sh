#!/usr/bin/env bash
# setup.sh CACHE
#
# Ensures that a DNS server can be run in a network namespace (dnsmasq, ip): installs missing packages and tries it. Needs root.
# CACHE is unused.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 1; }
has_all() { command -v ip >/dev/null && command -v dnsmasq >/dev/null; }
if ! has_all; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 dnsmasq-base >/dev/null
fi
has_all
name=crossdock-probe-$$
ip netns add "$name"
trap 'ip netns del "$name"' EXIT
ip -n "$name" link set lo up
ip -n "$name" addr add fd00:cd::1/128 dev lo
ip netns exec "$name" dnsmasq --test --conf-file=/dev/null >/dev/null 2>&1
