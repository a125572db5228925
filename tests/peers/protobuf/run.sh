#!/usr/bin/env bash
# run.sh CACHE TESTEE [extra runner args]
#
# Runs the conformance runner in CACHE (installed by setup.sh) against the executable TESTEE.
# The runner is started with the newer loader and --library-path, an argument and not an
# environment variable, so that TESTEE uses the machine's own loader and libraries.
# The runner writes its lists (failing_tests.txt, succeeding_tests.txt, unmatched.txt) to CACHE/out,
# unless an extra argument sets --output_dir (its own default is "/").
# Exit codes: 0 both suites passed; 1 unexpected failure, unexpected success or invalid runner option;
# 2 usage error; 134 the runner aborted; 141 the testee exited early (SIGPIPE).
# A testee that skips everything passes, so callers must check the number of successes.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CACHE TESTEE [runner args]" >&2; exit 2; }
CACHE=$(cd "$1" && pwd)
TESTEE=$(realpath -- "$2")   # a path, as the runner calls execv, which does not search PATH
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
