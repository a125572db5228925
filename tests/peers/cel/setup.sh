#!/usr/bin/env bash
# setup.sh CACHE
#
# Builds the cel-go evaluator (version in go.mod) into the folder CACHE, installs cel-cpp for Python (PyPI cel-expr-python, version in
# requirements.txt), and downloads the Go module of CEL's conformance tests. Does nothing if everything is installed. Needs Go 1.26, and
# python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/go.* "$here"/cmd/*/*.go "$here/requirements.txt"
command -v go >/dev/null || { echo "setup: Go is missing" >&2; exit 1; }
export GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0
(cd "$here" && go build -trimpath -ldflags="-s -w" -o "$cache/evaluate" ./cmd/evaluate)
# The data of tests/tests/cel_conformance.rs.
(cd "$cache" && GOFLAGS= go mod download cel.dev/expr@v0.25.3)
install_python
installed
