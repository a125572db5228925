#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs the SDK of CloudEvents for Python, and clients of the protocols that events are sent over, into the folder CACHE. Does nothing if everything
# is installed. Needs python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/requirements.txt
install_python
installed
