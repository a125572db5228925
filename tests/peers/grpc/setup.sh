#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs gRPC and Prometheus' client for Python into the folder CACHE: venv/, and python/ with the code generated from lab.v1.
# Does nothing if everything is installed. Needs python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/requirements.txt "$here"/python/lab/v1/*.proto
install_python
common=$("$cache/venv/bin/python" -c 'import google.rpc, os; print(os.path.dirname(os.path.dirname(list(google.rpc.__path__)[0])))')
mkdir -p "$cache/python"
(cd "$here/python" && "$cache/venv/bin/python" -m grpc_tools.protoc -I . -I "$common" \
  --python_out="$cache/python" --grpc_python_out="$cache/python" lab/v1/echo.proto)
installed
