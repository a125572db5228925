#!/usr/bin/env bash
# run.sh CACHE TESTEE [extra runner args]
#
# Starts the conformance runner from CACHE (made by setup.sh) against the executable TESTEE.
# The runner is started through the newer loader by --library-path, which is an argument and not
# an environment variable, so TESTEE is started by the machine's ordinary loader and libraries.
# The runner's lists (failing_tests.txt, succeeding_tests.txt, unmatched.txt) go to CACHE/out,
# unless an extra --output_dir says otherwise (without any, the runner writes them into "/").
# Exit: 0 both suites passed; 1 unexpected failure, unexpected success or wrong runner option;
# 2 wrong use of this script; 134 the runner aborted; 141 the testee ended early (SIGPIPE).
# A testee that skips everything passes: who reads the verdict has to count.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CACHE TESTEE [runner args]" >&2; exit 2; }
CACHE=$(cd "$1" && pwd)
TESTEE=$(realpath -- "$2")   # a path: the runner calls execv, which searches no PATH
shift 2
[ -f "$TESTEE" ] && [ -x "$TESTEE" ] || { echo "run.sh: $TESTEE is not an executable" >&2; exit 2; }
case $(uname -m) in
    x86_64) ld=ld-linux-x86-64.so.2 ;;
    *) echo "run.sh: the runner is built for x86_64 only" >&2; exit 2 ;;
esac
unset LD_LIBRARY_PATH LD_PRELOAD
mkdir -p "$CACHE/out"
rm -f "$CACHE"/out/{failing_tests,succeeding_tests,unmatched}.txt
exec "$CACHE/glibc/$ld" --inhibit-cache --library-path "$CACHE/glibc" \
    "$CACHE/runner/bin/conformance_test_runner-linux-x64" --output_dir "$CACHE/out/" "$@" "$TESTEE"
