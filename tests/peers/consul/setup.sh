#!/usr/bin/env bash
# setup.sh CACHE
#
# Succeeds if Consul was compiled, which takes seven minutes of CPU time: with CROSSDOCK_CONSUL=1, it is compiled now. Needs Go then.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
if [ -n "${CROSSDOCK_CONSUL:-}" ]; then
  exec "$here/../../services/services" install consul
fi
cd "$here/../../services"
python3 -c "import sys; from engines import Consul; sys.exit(not Consul().program().exists())"
