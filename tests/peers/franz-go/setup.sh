#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds a member of consumer groups with franz-go (version in go.mod) into the folder CACHE. Does nothing if it is there. Needs Go.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/go.* "$here"/*.go
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
(cd "$here" && GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o "$cache/franz" .)
installed
