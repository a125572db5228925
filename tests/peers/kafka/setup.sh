#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs aiokafka (Kafka for Python, without librdkafka), confluent-kafka, fastavro and Spring Kafka into the folder CACHE, and the servers of Apache
# Kafka and Apicurio Registry with Java on the machine if run as root. Does nothing if everything is installed. Needs python3 with venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.bash"
begin "$@"
exit_if_installed "$here"/requirements.txt "$here"/spring/pom.xml "$here"/../../services/kafka-server/pom.xml "$here"/../../services/apicurio.py
install_python
"$here/../../services/services" install kafka apicurio
rm -rf "$cache/spring"
mvn -B -q -f "$here/spring/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$cache/spring" -DincludeScope=runtime
installed
