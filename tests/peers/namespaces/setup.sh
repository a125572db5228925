#!/usr/bin/env bash
# setup.sh CACHE
#
# Sees to it that instances can be put into network namespaces (ip, tc) and their clocks be set (libfaketime): installs what is missing when run as
# root, and tries it. CACHE is not used.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 1; }
libfaketime() { compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; }
if ! command -v ip >/dev/null || ! command -v tc >/dev/null || ! libfaketime; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 libfaketime >/dev/null
fi
libfaketime
name=crossdock-try-$$
ip netns add "$name"
trap 'ip netns del "$name"' EXIT
ip -n "$name" link add bridge type bridge
ip -n "$name" link add one type veth peer name other
tc -n "$name" qdisc add dev one root tbf rate 1mbit burst 10k limit 500k
