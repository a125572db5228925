#!/usr/bin/env python3
"""Compares durable writes to ZooKeeper, etcd and Crossdock, three servers each on one disk.

    benches/cluster/run.py [--rounds N] [--seconds N] [--sizes BYTES …] [--outstanding COUNT …] [--tls]

Every server syncs its log before it acknowledges a write. Rounds interleave the systems, whose servers run all the time, in an order that rotates; each
run has a warm-up; the table shows medians. CPU and syncs are the sums over the three servers; syncs are those of the log, as each system counts them. The
clients are the official Java client and a Go client for ZooKeeper, the official Go client for etcd, each over 3 and 16 connections; the table shows the
fastest client of each. With --tls, the servers use mutual TLS among themselves; the clients never do. Needs Go, a JDK, Maven and openssl; the releases of
ZooKeeper and etcd are in zookeeper/pom.xml and etcd/go.mod.
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
from servers import ROOT, SERVERS, TARGET, Cluster, certificates, etcd, find_count, free_port, jars, measure, need, query, zookeeper  # noqa: E402


def crossdock(folder, tls):
    print("building (dist) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "-p", "crossdock-tests", "--bin", "register-node", "--bin", "register-writers"], cwd=ROOT, check=True)
    clients, peers = [free_port() for _ in range(SERVERS)], [free_port() for _ in range(SERVERS)]
    members = ",".join(f"{n}=127.0.0.1:{peer}" for n, peer in enumerate(peers, 1))
    commands = [[TARGET / "dist/register-node", number, folder / f"crossdock-{number}", f"127.0.0.1:{client}", members, "large", *([f"tls={folder}"] if tls else [])]
                for number, client in enumerate(clients, 1)]
    return Cluster("crossdock", folder, commands, clients, lambda port: find_count(r"syncs (\d+)", query(port, "0 syncs\n")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1024])
    parser.add_argument("--outstanding", type=int, nargs="+", default=[1, 16, 128, 1024])
    parser.add_argument("--tls", action="store_true", help="mutual TLS among the servers")
    arguments = parser.parse_args()
    need("go", "golang-go")
    need("javac", "openjdk-17-jdk-headless")
    need("mvn", "maven")
    need("openssl", "openssl")
    # The target folder is on a disk; /tmp may be in memory.
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET) as name:
        folder = pathlib.Path(name)
        client = folder / "client"
        subprocess.run(["go", "build", "-o", client, "."], cwd=HERE / "client", check=True)
        if arguments.tls:
            certificates(folder)
        clusters = [start(folder, arguments.tls) for start in (crossdock, zookeeper, etcd)]
        subprocess.run(["javac", "-proc:none", "-cp", jars(), "-d", folder, HERE / "zookeeper/Writers.java"], check=True)
        java = ["java", "-Xmx512m", "-cp", f"{folder}:{jars()}", "Writers"]
        clients = {"crossdock": {"Rust": [TARGET / "dist/register-writers"]},
                   "etcd": {f"Go, {count}": [client, "etcd", count] for count in (3, 16)},
                   "zookeeper": {f"Java, {count}": [*java, count] for count in (3, 16)} |
                                {f"Go, {count}": [client, "zookeeper", count] for count in (3, 16)}}
        runs = {}
        try:
            for cluster in clusters:
                cluster.wait()
            time.sleep(2)
            for number in range(arguments.rounds):
                for size in arguments.sizes:
                    for outstanding in arguments.outstanding:
                        print(f"round {number + 1} of {arguments.rounds}: {size} bytes, {outstanding}", file=sys.stderr, flush=True)
                        at = number % len(clusters)
                        for cluster in clusters[at:] + clusters[:at]:
                            addresses = ",".join(f"127.0.0.1:{port}" for port in cluster.clients)
                            for language, command in clients[cluster.name].items():
                                results = measure(cluster, command, [addresses, outstanding, size, arguments.seconds])
                                runs.setdefault((size, outstanding, cluster.name), {}).setdefault(language, []).append(results)
        finally:
            for cluster in clusters:
                cluster.stop()
    report(runs, arguments.rounds)


def report(runs, rounds):
    def best(key):
        """The fastest client and its medians."""
        medians = [(language, {figure: statistics.median(run[figure] for run in results) for figure in results[0]})
                   for language, results in runs[key].items()]
        return max(medians, key=lambda one: one[1]["per_s"])

    print(f"\n{rounds} rounds, medians; CPU microseconds of the three servers per write, and syncs per write, including the warm-up; how many times as much CPU each "
          "takes as Crossdock, and how many times as fast Crossdock is")
    print("\n| bytes | outstanding | system, client, connections | CPU-µs | / Crossdock | writes/s | Crossdock / | p50 ms | p99 ms | p99.9 ms | syncs |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size, outstanding, name in sorted(runs):
        language, results = best((size, outstanding, name))
        own = best((size, outstanding, "crossdock"))[1]
        print(f"| {size} | {outstanding} | {name}, {language} | {results['cpu']:,.0f} | {results['cpu'] / own['cpu']:.1f} | {results['per_s']:,.0f} | "
              f"{own['per_s'] / results['per_s']:.1f} | {results['p50']:.2f} | {results['p99']:.1f} | {results['p999']:.1f} | {results['syncs']:.3f} |")


if __name__ == "__main__":
    main()
