#!/usr/bin/env python3
"""Compares ordered queues of ZooKeeper, etcd, Redis and Crossdock: from adding a message to its delivery.

    benches/queues/run.py [--rounds N] [--seconds N] [--keys COUNT …] [--sizes BYTES …]

ZooKeeper, etcd and Crossdock have three servers each, and sync their logs before they accept a message. Redis is one server that syncs its log with every
command; it has no consensus. Each key has a producer that adds a message once the one before is accepted, and no more than 16 that are not delivered. Messages
of a key are delivered in their order, which the client checks, and settled. The clients are written in Go: Crossdock's calls the API of the cluster over gRPC,
ZooKeeper's uses sequential nodes as in its recipe of a queue, etcd's the queue of its own client, one for each key, and Redis has a stream with a consumer group
for each key. Rounds interleave the systems, whose servers run all the time, in an order that rotates; each run has a warm-up of a second; the table shows
medians. CPU is the sum over the servers. Needs Go, a JDK, Maven and Redis.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 4096])
    arguments = parser.parse_args()
    need_peers()
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET) as name:
        folder = pathlib.Path(name)
        client = folder / "client"
        subprocess.run(["go", "build", "-o", client, "."], cwd=HERE / "client", check=True)
        ours, _ = gateways(folder, "[ enqueue, consume ]")
        systems = [ours, zookeeper(folder), etcd(folder), redis(folder)]
        cases = [(size, keys) for size in arguments.sizes for keys in arguments.keys]
        os.environ["API_TOKEN"] = TOKEN
        try:
            for system in systems:
                system.wait()
            time.sleep(2)
            run = lambda system, addresses, case: measure(system, [client, system.name], [addresses, case[1], case[0], arguments.seconds])
            runs = interleave(arguments.rounds, cases, systems, run)
        finally:
            for system in systems:
                system.stop()
    report(runs, cases, [system.name for system in systems], arguments.rounds)


def report(runs, cases, names, rounds):
    print(f"\n{rounds} rounds, medians; messages delivered per second, and how many times as many with Crossdock; from adding to delivery; CPU microseconds of all servers per "
          "message, with the warm-up")
    print("\n| bytes | keys | system | messages/s | Crossdock / | p50 ms | p99 ms | CPU-µs |\n| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for size, keys in cases:
        median = {name: {figure: statistics.median(run[figure] for run in runs[size, keys, name]) for figure in ("per_s", "p50", "p99", "cpu")} for name in names}
        for name in names:
            own = median[name]
            print(f"| {size} | {keys} | {name} | {own['per_s']:,.0f} | {median['crossdock']['per_s'] / own['per_s']:.1f} | {own['p50']:.2f} | {own['p99']:.1f} | {own['cpu']:,.0f} |")


if __name__ == "__main__":
    main()
