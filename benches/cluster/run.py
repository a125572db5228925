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
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SERVERS = 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(program, package):
    if shutil.which(program) is None and not pathlib.Path(program).exists():
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        if os.geteuid() != 0 or subprocess.run(command, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"), stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"{program} is missing: install the Debian package {package}")


class Cluster:
    """Three servers of one system."""

    def __init__(self, name, folder, commands, clients, syncs):
        self.name, self.clients, self.syncs_of = name, clients, syncs
        self.servers = []
        for number, command in enumerate(commands):
            log = open(folder / f"{name}-{number + 1}.log", "wb")
            self.servers.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log))

    def wait(self):
        for port in self.clients:
            deadline = time.monotonic() + 30
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > deadline:
                    sys.exit(f"{self.name} failed to start")
                time.sleep(0.05)

    def cpu_seconds(self):
        total = 0
        for server in self.servers:
            fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def syncs(self):
        return sum(self.syncs_of(port) for port in self.clients)

    def stop(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def query(port, command):
    """Sends a command to a server; returns the response, one line if the command is a line, else all until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(command.encode())
        response = b""
        while part := connection.recv(65536):
            response += part
            if command.endswith("\n") and response.endswith(b"\n"):
                break
        return response.decode()


def find_count(pattern, text):
    return int(float(re.search(pattern, text, re.MULTILINE).group(1)))


def certificates(folder):
    """Writes certificates of three servers, and the authority that issued them, as PEM files."""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-days", 30, "-keyout", ca_key, "-out", ca)
    for number in range(1, SERVERS + 1):
        own, request, names = folder / f"{number}.key", folder / "request", folder / "names"
        openssl("req", *key, "-subj", f"/CN={number}.register", "-keyout", own, "-out", request)
        names.write_text(f"subjectAltName=DNS:{number}.register,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 30, "-extfile", names, "-out", folder / f"{number}.pem")
        (folder / f"{number}-both.pem").write_text(own.read_text() + (folder / f"{number}.pem").read_text())


def zookeeper(folder, tls):
    clients = [free_port() for _ in range(SERVERS)]
    quorum = [(free_port(), free_port()) for _ in range(SERVERS)]
    commands = []
    for number, client in enumerate(clients, 1):
        data = folder / f"zookeeper-{number}"
        data.mkdir()
        (data / "myid").write_text(str(number))
        servers = "".join(f"server.{n}=127.0.0.1:{peer}:{vote}\n" for n, (peer, vote) in enumerate(quorum, 1))
        secure = f"""sslQuorum=true
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.quorum.keyStore.location={folder}/{number}-both.pem
ssl.quorum.trustStore.location={folder}/ca.pem
ssl.quorum.hostnameVerification=false
""" if tls else ""
        (data / "zoo.cfg").write_text(secure + f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={data}\nclientPort={client}\n"
                                      f"clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=mntr\n{servers}")
        commands.append(["java", "-Xmx1g", "-cp", jars(),
                         "org.apache.zookeeper.server.quorum.QuorumPeerMain", data / "zoo.cfg"])
    return Cluster("zookeeper", folder, commands, clients, lambda port: find_count(r"^zk_cnt_fsynctime\s+(\S+)", query(port, "mntr")))


def jars():
    folder = TARGET / "bench-zookeeper"
    if not folder.exists():
        subprocess.run(["mvn", "-q", "-B", "-f", HERE / "zookeeper/pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
                       check=True, stdout=sys.stderr)
    return ":".join(str(jar) for jar in sorted(folder.glob("*.jar")))


def etcd(folder, tls):
    program = folder / "etcd"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "etcd", check=True)
    scheme = "https" if tls else "http"
    clients, peers = [free_port() for _ in range(SERVERS)], [free_port() for _ in range(SERVERS)]
    initial = ",".join(f"e{n}={scheme}://127.0.0.1:{peer}" for n, peer in enumerate(peers, 1))
    commands = []
    for number, (client, peer) in enumerate(zip(clients, peers), 1):
        here, there = f"http://127.0.0.1:{client}", f"{scheme}://127.0.0.1:{peer}"
        secure = ["--peer-cert-file", folder / f"{number}.pem", "--peer-key-file", folder / f"{number}.key", "--peer-trusted-ca-file", folder / "ca.pem",
                  "--peer-client-cert-auth"] if tls else []
        commands.append([program, *secure, "--name", f"e{number}", "--data-dir", folder / f"etcd-{number}", "--listen-client-urls", here,
                         "--advertise-client-urls", here, "--listen-peer-urls", there, "--initial-advertise-peer-urls", there,
                         "--initial-cluster", initial, "--log-level", "error"])
    def syncs(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
            return find_count(r"^etcd_disk_wal_fsync_duration_seconds_count (\S+)", metrics.read().decode())
    return Cluster("etcd", folder, commands, clients, syncs)


def crossdock(folder, tls):
    print("building (dist) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "-p", "crossdock-tests", "--bin", "register-node", "--bin", "register-writers"], cwd=ROOT, check=True)
    clients, peers = [free_port() for _ in range(SERVERS)], [free_port() for _ in range(SERVERS)]
    members = ",".join(f"{n}=127.0.0.1:{peer}" for n, peer in enumerate(peers, 1))
    commands = [[TARGET / "dist/register-node", number, folder / f"crossdock-{number}", f"127.0.0.1:{client}", members, "large", *([f"tls={folder}"] if tls else [])]
                for number, client in enumerate(clients, 1)]
    return Cluster("crossdock", folder, commands, clients, lambda port: find_count(r"syncs (\d+)", query(port, "0 syncs\n")))


def measure(cluster, client, arguments):
    """Runs a client; returns its results with CPU and syncs per write."""
    cpu, syncs = cluster.cpu_seconds(), cluster.syncs()
    output = subprocess.run([*map(str, client), *map(str, arguments)], check=True, capture_output=True, text=True).stdout
    results = json.loads(output)
    results["cpu"] = (cluster.cpu_seconds() - cpu) / results["writes"] * 1e6
    results["syncs"] = (cluster.syncs() - syncs) / results["writes"]
    return results


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
