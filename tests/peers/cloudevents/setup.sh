#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs the SDK of CloudEvents for Python, and clients of the protocols that events are sent over, into the folder CACHE. Does nothing if everything
# is installed. Needs python3 with venv.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/requirements.txt "$here"/setup.sh | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
echo "$want" >"$cache/stamp"
