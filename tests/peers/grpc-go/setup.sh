#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds grpc-go's interop client and server, grpcurl and h2spec (versions in go.mod) into the folder CACHE, with the
# descriptors of the interop service. Does nothing if everything is installed. Needs Go.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/go.* "$here"/cmd/*/*.go "$here"/*/go.* "$here/setup.sh" | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
export GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0
build() { (cd "$1" && go build -trimpath -ldflags="-s -w" -o "$cache/$2" "$3"); }
build "$here" interop-client google.golang.org/grpc/interop/client
build "$here" interop-server ./cmd/server
build "$here/grpcurl" grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
build "$here/h2spec" h2spec github.com/summerwind/h2spec/cmd/h2spec
(cd "$here" && go run ./cmd/descriptors) >"$cache/testing.binpb.tmp"
mv "$cache/testing.binpb.tmp" "$cache/testing.binpb"
echo "$want" >"$cache/stamp"
