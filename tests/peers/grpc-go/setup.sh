#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds grpc-go's interop client and server, grpcurl and h2spec (versions in go.mod) into the folder CACHE, with the
# descriptors of the interop service. Does nothing if everything is installed. Needs Go.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/go.* "$here"/cmd/*/*.go "$here"/*/go.*
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
export GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0
build() { (cd "$1" && go build -trimpath -ldflags="-s -w" -o "$cache/$2" "$3"); }
build "$here" interop-client google.golang.org/grpc/interop/client
build "$here" interop-server ./cmd/server
build "$here/grpcurl" grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
build "$here/h2spec" h2spec github.com/summerwind/h2spec/cmd/h2spec
(cd "$here" && go run ./cmd/descriptors) >"$cache/testing.binpb.tmp"
mv "$cache/testing.binpb.tmp" "$cache/testing.binpb"
installed
