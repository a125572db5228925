#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs pika and aio-pika (AMQP for Python) and amqplib (for Node) into the folder CACHE, and RabbitMQ on the machine if run as root.
# Does nothing if everything is installed. Needs python3 with venv, and npm.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/requirements.txt
install_python
npm install --silent --no-audit --no-fund --prefix "$cache" amqplib@2.3.1
"$here/../../services/services" install rabbitmq
installed
