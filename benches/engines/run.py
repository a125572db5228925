#!/usr/bin/env python3
"""Compares the step `lock` of a route with each engine that can keep locks: that of the gateways' own cluster, ZooKeeper, etcd and Redis.

    benches/engines/run.py [--rounds N] [--seconds N] [--workers COUNT …]

Three gateways serve the same route with each engine, and answer while they hold a lock. ZooKeeper and etcd have three servers, Redis has one that syncs its log
with every command. Workers call over a connection of their own; they either have a lock each, or all want the same one. A hand-over is the time from one grant
of a lock to the next, as clients see them. Rounds interleave the engines, whose servers and gateways run all the time, in an order that rotates; each run has a
warm-up of a second; the table shows medians. CPU is the sum over the servers of the engine and the gateways. Needs Go, a JDK, Maven and Redis.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from servers import TARGET, etcd, gateways, gateways_with, interleave, measure, need_peers, redis, zookeeper  # noqa: E402

ROUTES = """version: 1
routes:
  lock:
    from: { http: { listen: public, post: /lock } }
    steps: [ { lock: { name: "${req.name}", wait: 60s, steps: [ { respond: { status: 204, body: none } } ] } } ]
"""


class Measured:
    """Gateways with their engine."""

    def __init__(self, name, calls, clusters):
        self.name, self.clients, self.clusters = name, calls, clusters

    def cpu_seconds(self):
        return sum(cluster.cpu_seconds() for cluster in self.clusters)

    def syncs(self):
        return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 100])
    arguments = parser.parse_args()
    need_peers()
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET) as name:
        folder = pathlib.Path(name)
        client = folder / "client"
        subprocess.run(["go", "build", "-o", client, "."], cwd=HERE.parent / "locks/client", check=True)
        ours, calls = gateways(folder, "[ locks ]", ROUTES)
        started, systems = [ours], [Measured("embedded", calls, [ours])]
        for engine in (zookeeper(folder), etcd(folder), redis(folder)):
            started.append(engine)
            engine.wait()
            users = gateways_with(engine, folder, ROUTES)
            started.append(users)
            systems.append(Measured(engine.name, users.clients, [engine, users]))
        cases = [(workers, locks) for workers in arguments.workers for locks in sorted({1, workers}, reverse=True)]
        try:
            for cluster in started:
                cluster.wait()
            # Their sessions are opened.
            time.sleep(5)
            run = lambda system, addresses, case: measure(system, [client, "route"], [addresses, *case, arguments.seconds])
            runs = interleave(arguments.rounds, cases, systems, run)
        finally:
            for cluster in reversed(started):
                cluster.stop()
    report(runs, cases, [system.name for system in systems], arguments.rounds)


def report(runs, cases, names, rounds):
    print(f"\n{rounds} rounds, medians; calls of a route that holds a lock, per second; CPU microseconds of all servers per call, with the warm-up")
    print("\n| workers | locks | engine | calls/s | p50 ms | p99 ms | hand-over p50 ms | p99 ms | CPU-µs |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for workers, locks in cases:
        for name in names:
            own = {figure: statistics.median(run[figure] for run in runs[workers, locks, name]) for figure in runs[workers, locks, name][0]}
            handovers = f"{own['handover_p50']:.2f} | {own['handover_p99']:.1f}" if workers > locks else "– | –"
            print(f"| {workers} | {locks} | {name} | {own['per_s']:,.0f} | {own['p50']:.2f} | {own['p99']:.1f} | {handovers} | {own['cpu']:,.0f} |")


if __name__ == "__main__":
    main()
