"""What all services share: their state, their processes and their ports."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-tests"
STATE = pathlib.Path(os.environ.get("CROSSDOCK_SERVICES", CACHE / "services"))
START_SECONDS = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_time(pid):
    """The start time of a process, which tells it apart from a later one with the same id."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def install(command, package):
    """Installs a package, unless it is known by a command or file that is there."""
    if shutil.which(command) or pathlib.Path(command).exists():
        return
    if os.geteuid() != 0:
        sys.exit(f"{command} is missing: install the Debian package {package}")
    subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
    # RUNLEVEL=1 prevents that the package starts a system service.
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True,
                   stdout=subprocess.DEVNULL, env=environment)


class Service:
    """A service: its processes, its folder and the variables that it prints."""

    def __init__(self, name):
        self.file = STATE / f"{name}.json"
        self.name = name

    def saved(self):
        try:
            return json.loads(self.file.read_text())
        except (OSError, ValueError):
            return None

    def running(self):
        saved = self.saved()
        return saved if saved and all(start_time(pid) == since for pid, since in saved["processes"]) else None

    def save(self, processes, folder, variables):
        state = {"processes": [(pid, start_time(pid)) for pid in processes], "folder": str(folder), "variables": variables}
        self.file.write_text(json.dumps(state))
        return state

    def down(self):
        saved = self.saved()
        if saved is None:
            return
        ours = [pid for pid, since in saved["processes"] if since is not None and start_time(pid) == since]
        for pid in ours:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        for pid, since in saved["processes"]:
            while pid in ours and start_time(pid) == since and not is_zombie(pid):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    break
                time.sleep(0.05)
        shutil.rmtree(saved["folder"], ignore_errors=True)
        self.file.unlink()


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def spawn(command, environment, log):
    with open(log, "ab") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                start_new_session=True)


def wait(ready, child, log, what):
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{what} did not start:\n{pathlib.Path(log).read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)
