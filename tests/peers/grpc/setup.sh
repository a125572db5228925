#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs gRPC and Prometheus' client for Python into the folder CACHE: venv/, and python/ with the code generated from lab.v1.
# Does nothing if everything is installed. Needs python3 with venv.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/requirements.txt "$here"/setup.sh "$here"/python/lab/v1/*.proto | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
common=$("$cache/venv/bin/python" -c 'import google.rpc, os; print(os.path.dirname(os.path.dirname(list(google.rpc.__path__)[0])))')
mkdir -p "$cache/python"
(cd "$here/python" && "$cache/venv/bin/python" -m grpc_tools.protoc -I . -I "$common" \
  --python_out="$cache/python" --grpc_python_out="$cache/python" lab/v1/echo.proto)
echo "$want" >"$cache/stamp"
