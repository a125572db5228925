#!/usr/bin/env bash
# setup.sh CACHE
#
# Ensures that instances can be run in network namespaces (ip, tc), with private disks (mkfs.ext4, fsfreeze) and changed clocks (libfaketime):
# installs missing packages and tries it. Needs root. CACHE is unused.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 1; }
libfaketime() { compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; }
has_all() { for name in ip tc mkfs.ext4 mount fsfreeze; do command -v "$name" >/dev/null || return 1; done; libfaketime; }
if ! has_all; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 e2fsprogs mount util-linux libfaketime >/dev/null
fi
has_all
name=crossdock-probe-$$
ip netns add "$name"
folder=$(mktemp -d)
trap 'ip netns del "$name"; umount -l "$folder/disk" 2>/dev/null || true; rm -rf "$folder"' EXIT
ip -n "$name" link add bridge type bridge
ip -n "$name" link add one type veth peer name other
tc -n "$name" qdisc add dev one root tbf rate 1mbit burst 10k limit 500k
mkdir "$folder/disk"
truncate -s 16M "$folder/image"
mkfs.ext4 -q "$folder/image"
mount -o loop "$folder/image" "$folder/disk"
fsfreeze -f "$folder/disk"
fsfreeze -u "$folder/disk"
