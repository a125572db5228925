#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs aiokafka (Kafka for Python, without librdkafka), confluent-kafka, fastavro and Spring Kafka into the folder CACHE, and the servers of Apache
# Kafka and Apicurio Registry with Java on the machine if run as root. Does nothing if everything is installed. Needs python3 with venv.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
exec 9>"$cache/.lock"
flock 9
want=$(cat "$here"/requirements.txt "$here"/setup.sh "$here"/spring/pom.xml "$here"/../../services/kafka-server/pom.xml "$here"/../../services/apicurio.py | sha256sum | cut -c1-64)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$want" ] && exit 0
[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
"$here/../../services/services" install kafka apicurio
rm -rf "$cache/spring"
mvn -B -q -f "$here/spring/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$cache/spring" -DincludeScope=runtime
echo "$want" >"$cache/stamp"
