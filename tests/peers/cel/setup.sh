#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds the cel-go evaluator (version in go.mod) into the folder CACHE, installs cel-cpp for Python (PyPI cel-expr-python, version in
# requirements.txt), and downloads the Go module of CEL's conformance tests. Does nothing if everything is installed. Needs Go 1.26, and
# python3 with venv.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/go.* "$here"/cmd/*/*.go "$here/requirements.txt" "$here/setup.sh" | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
export GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0
(cd "$here" && go build -trimpath -ldflags="-s -w" -o "$cache/evaluate" ./cmd/evaluate)
# The data of tests/tests/cel_conformance.rs.
(cd "$cache" && GOFLAGS= go mod download cel.dev/expr@v0.25.3)
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
echo "$want" >"$cache/stamp"
