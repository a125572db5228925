#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds a member of consumer groups with franz-go (version in go.mod) into the folder CACHE. Does nothing if it is there. Needs Go.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/go.* "$here"/*.go "$here/setup.sh" | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
(cd "$here" && GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o "$cache/franz" .)
echo "$want" >"$cache/stamp"
