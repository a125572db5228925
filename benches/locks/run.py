#!/usr/bin/env python3
"""Compares locks of ZooKeeper, etcd, Redis and Crossdock: acquire and release, one after another.

    benches/locks/run.py [--rounds N] [--seconds N] [--workers COUNT …]

ZooKeeper, etcd and Crossdock have three servers each, and sync their logs before they grant a lock. Crossdock's are gateways, and each acquire is an HTTP call to
a route that answers while it holds the lock, so its figures contain HTTP and the whole route. Redis is one server that syncs its log with every command; it has
no consensus. Each worker has a connection of its own; workers either have a lock each, or all want the same one. The clients are written in Go: ZooKeeper's with
the lock recipe of go-zookeeper, etcd's with the mutex of its own client. Rounds interleave the systems, whose servers run all the time, in an order that rotates;
each run has a warm-up of a second; the table shows medians. CPU is the sum over the servers. Needs Go, a JDK, Maven and Redis.
"""

import argparse
import importlib.util
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
found = importlib.util.spec_from_file_location("cluster_bench", HERE.parent / "cluster/run.py")
shared = importlib.util.module_from_spec(found)
found.loader.exec_module(shared)

ROUTE = """version: 1
routes:
  lock:
    from: { http: { listen: public, post: /lock } }
    steps: [ { lock: { name: "${req.name}", wait: 60s, steps: [ { respond: { status: 204, body: none } } ] } } ]
"""


def crossdock(folder):
    print("building (dist) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "-p", "crossdock-cli"], cwd=shared.ROOT, check=True)
    program = shared.TARGET / "dist/crossdock"
    clients, peers = [shared.free_port() for _ in range(shared.SERVERS)], [shared.free_port() for _ in range(shared.SERVERS)]
    members = ", ".join(f'{n}: "127.0.0.1:{peer}"' for n, peer in enumerate(peers, 1))
    commands = []
    for number, client in enumerate(clients, 1):
        here = folder / f"crossdock-{number}"
        (here / "routes").mkdir(parents=True)
        (here / "routes/lock.yaml").write_text(ROUTE)
        (here / "crossdock.yaml").write_text(f"""version: 1
workers: 1
listeners: {{ public: {{ http: {{ bind: "127.0.0.1:{client}" }} }} }}
cluster: {{ id: {number}, members: {{ {members} }} }}
""")
        subprocess.run([program, "cluster", "init", "--bootstrap", "--config", here], check=True, stdout=subprocess.DEVNULL)
        commands.append([program, "run", "--config", here])
    return shared.Cluster("crossdock", folder, commands, clients, lambda port: 0)


def redis(folder):
    shared.need("redis-server", "redis-server")
    port = shared.free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return shared.Cluster("redis", folder, [command], [port], lambda port: 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 100])
    arguments = parser.parse_args()
    shared.need("go", "golang-go")
    shared.need("javac", "openjdk-17-jdk-headless")
    shared.need("mvn", "maven")
    shared.TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shared.TARGET) as name:
        folder = pathlib.Path(name)
        client = folder / "client"
        subprocess.run(["go", "build", "-o", client, "."], cwd=HERE / "client", check=True)
        systems = [crossdock(folder), shared.zookeeper(folder, False), shared.etcd(folder, False), redis(folder)]
        # One worker has a lock of its own in any case.
        cases = [(workers, locks) for workers in arguments.workers for locks in sorted({1, workers}, reverse=True)]
        runs = {}
        try:
            for system in systems:
                system.wait()
            time.sleep(2)
            for number in range(arguments.rounds):
                for workers, locks in cases:
                    print(f"round {number + 1} of {arguments.rounds}: {workers} workers, {locks} locks", file=sys.stderr, flush=True)
                    at = number % len(systems)
                    for system in systems[at:] + systems[:at]:
                        addresses = ",".join(f"127.0.0.1:{port}" for port in system.clients)
                        results = shared.measure(system, [client, system.name], [addresses, workers, locks, arguments.seconds])
                        runs.setdefault((workers, locks, system.name), []).append(results)
        finally:
            for system in systems:
                system.stop()
    report(runs, cases, [system.name for system in systems], arguments.rounds)


def report(runs, cases, names, rounds):
    print(f"\n{rounds} rounds, medians; acquire and release per second, and how many times as fast Crossdock is; CPU microseconds of all servers per pair, with the warm-up")
    print("\n| workers | locks | system | pairs/s | Crossdock / | p50 ms | p99 ms | CPU-µs |\n| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for workers, locks in cases:
        median = {name: {figure: statistics.median(run[figure] for run in runs[workers, locks, name]) for figure in ("per_s", "p50", "p99", "cpu")} for name in names}
        for name in names:
            own = median[name]
            print(f"| {workers} | {locks} | {name} | {own['per_s']:,.0f} | {median['crossdock']['per_s'] / own['per_s']:.1f} | {own['p50']:.2f} | {own['p99']:.1f} | {own['cpu']:,.0f} |")


if __name__ == "__main__":
    main()
