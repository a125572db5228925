#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs ZooKeeper, etcd and Redis, as root on Debian. Does nothing if they are installed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
"$here/../../services/services" install zookeeper etcd redis
