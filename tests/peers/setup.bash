# Sourced by the setup.sh of each peer, whose folder is $here. After `begin`, $cache is the folder CACHE, which one process at a time fills.

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)

begin() { # setup.sh's arguments
  [ $# -eq 1 ] || { echo "usage: $0 CACHE" >&2; exit 2; }
  mkdir -p "$1"
  cache=$(cd "$1" && pwd)
  exec 9>"$cache/.lock"
  flock 9
}

exit_if_installed() { # the files that say what is installed, besides setup.sh
  want=$(cat "$here/setup.sh" "$@" | sha256sum | cut -c1-64)
  [ "$(cat "$cache/stamp" 2>/dev/null)" != "$want" ] || exit 0
}

install_python() { # the packages of requirements.txt
  [ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv"
  "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt"
}

installed() { echo "$want" >"$cache/stamp"; }
