#!/usr/bin/env python3
"""Compares locks of ZooKeeper, etcd, Redis and Crossdock: acquire and release, one after another.

    benches/locks/run.py [--rounds N] [--seconds N] [--workers COUNT …]

ZooKeeper, etcd and Crossdock have three servers each, and sync their logs before they grant a lock. Redis is one server that syncs its log with every command;
it has no consensus. Each worker has a connection of its own; workers either have a lock each, or all want the same one. A hand-over is the time from one grant
of a lock to the next, as clients see them that release it at once. The clients are written in Go: Crossdock's calls the API of the cluster as JSON over HTTP,
ZooKeeper's uses the lock recipe of go-zookeeper, etcd's the mutex of its own client. Two further rows call a route of Crossdock over HTTP: `route` answers while
it holds a lock, by the step `lock`, and `bare` is the same route without that step, so that the difference is the cost of the step. Rounds interleave the
systems, whose servers run all the time, in an order that rotates; each run has a warm-up of a second; the table shows medians. CPU is the sum over the servers.
Needs Go, a JDK, Maven and Redis.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from servers import TARGET, TOKEN, etcd, gateways, interleave, measure, need_peers, redis, zookeeper  # noqa: E402

ROUTES = """version: 1
routes:
  lock:
    from: { http: { listen: public, post: /lock } }
    steps: [ { lock: { name: "${req.name}", wait: 60s, steps: [ { respond: { status: 204, body: none } } ] } } ]
  bare:
    from: { http: { listen: public, post: /bare } }
    steps: [ { require: { that: "req.name != ''", message: "no name" } }, { respond: { status: 204, body: none } } ]
"""


class View:
    """A system that is called at other addresses of its servers."""

    def __init__(self, name, cluster, clients):
        self.name, self.cluster, self.clients = name, cluster, clients
        self.cpu_seconds, self.syncs = cluster.cpu_seconds, cluster.syncs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 100])
    arguments = parser.parse_args()
    need_peers()
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET) as name:
        folder = pathlib.Path(name)
        client = folder / "client"
        subprocess.run(["go", "build", "-o", client, "."], cwd=HERE / "client", check=True)
        ours, calls = gateways(folder, "[ locks ]", ROUTES)
        peers = [zookeeper(folder), etcd(folder), redis(folder)]
        systems = [ours, View("route", ours, calls), View("bare", ours, calls), *peers]
        # One worker has a lock of its own in any case.
        cases = [(workers, locks) for workers in arguments.workers for locks in sorted({1, workers}, reverse=True)]
        os.environ["API_TOKEN"] = TOKEN
        try:
            for system in [ours, *peers]:
                system.wait()
            time.sleep(2)
            run = lambda system, addresses, case: measure(system, [client, system.name], [addresses, *case, arguments.seconds])
            runs = interleave(arguments.rounds, cases, systems, run)
        finally:
            for system in [ours, *peers]:
                system.stop()
    report(runs, cases, [system.name for system in systems], arguments.rounds)


def report(runs, cases, names, rounds):
    print(f"\n{rounds} rounds, medians; acquire and release per second, and how many times as fast Crossdock is; CPU microseconds of all servers per pair, with the warm-up;")
    print("hand-overs of locks that all workers want")
    print("\n| workers | locks | system | pairs/s | Crossdock / | p50 ms | p99 ms | hand-over p50 ms | p99 ms | CPU-µs |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for workers, locks in cases:
        median = {name: {figure: statistics.median(run[figure] for run in runs[workers, locks, name]) for figure in runs[workers, locks, name][0]} for name in names}
        for name in names:
            own = median[name]
            is_shared = workers > locks and name != "bare"
            handovers = f"{own['handover_p50']:.2f} | {own['handover_p99']:.1f}" if is_shared else "– | –"
            print(f"| {workers} | {locks} | {name} | {own['per_s']:,.0f} | {median['crossdock']['per_s'] / own['per_s']:.1f} | {own['p50']:.2f} | {own['p99']:.1f} | "
                  f"{handovers} | {own['cpu']:,.0f} |")


if __name__ == "__main__":
    main()
