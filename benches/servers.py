"""Servers that the benchmarks of clusters, locks and queues start: ZooKeeper, etcd, Redis and gateways."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SERVERS = 3
# What clients of the gateways' API send.
TOKEN = "bench"


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


def zookeeper(folder, tls=False):
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
        subprocess.run(["mvn", "-q", "-B", "-f", BENCHES / "cluster/zookeeper/pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
                       check=True, stdout=sys.stderr)
    return ":".join(str(jar) for jar in sorted(folder.glob("*.jar")))


def etcd(folder, tls=False):
    program = folder / "etcd"
    subprocess.run(["go", "build", "-o", program, "."], cwd=BENCHES / "cluster/etcd", check=True)
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


def redis(folder):
    need("redis-server", "redis-server")
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return Cluster("redis", folder, [command], [port], lambda port: 0)


def gateways(folder, scopes, routes="version: 1\nroutes: {}\n"):
    """Three gateways, called at their API, and the ports of their routes."""
    print("building (dist) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "-p", "crossdock-cli"], cwd=ROOT, check=True)
    program = TARGET / "dist/crossdock"
    calls, apis, peers = ([free_port() for _ in range(SERVERS)] for _ in range(3))
    members = ", ".join(f'{n}: "127.0.0.1:{peer}"' for n, peer in enumerate(peers, 1))
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    commands = []
    for number, (call, api) in enumerate(zip(calls, apis), 1):
        here = folder / f"crossdock-{number}"
        (here / "routes").mkdir(parents=True)
        (here / "routes/bench.yaml").write_text(routes)
        (here / "clients.yaml").write_text(f'version: 1\nclients: {{ bench: {{ token: "sha256:{digest}", scopes: {scopes} }} }}\n')
        (here / "crossdock.yaml").write_text(f"""version: 1
workers: 1
listeners: {{ public: {{ http: {{ bind: "127.0.0.1:{call}" }} }} }}
cluster: {{ id: {number}, members: {{ {members} }}, api: {{ bind: "127.0.0.1:{api}", access: clients.yaml }} }}
""")
        subprocess.run([program, "cluster", "init", "--bootstrap", "--config", here], check=True, stdout=subprocess.DEVNULL)
        commands.append([program, "run", "--config", here])
    return Cluster("crossdock", folder, commands, apis, lambda port: 0), calls


def gateways_with(engine, folder, routes):
    """Three gateways that keep their locks in an engine, called at their routes."""
    calls = [free_port() for _ in range(SERVERS)]
    endpoints = ", ".join(f'"127.0.0.1:{port}"' for port in engine.clients)
    commands = []
    for number, call in enumerate(calls, 1):
        here = folder / f"with-{engine.name}-{number}"
        (here / "routes").mkdir(parents=True)
        (here / "routes/bench.yaml").write_text(routes)
        (here / "crossdock.yaml").write_text(f"""version: 1
workers: 1
listeners: {{ public: {{ http: {{ bind: "127.0.0.1:{call}" }} }} }}
coordination: {{ engine: {engine.name}, endpoints: [ {endpoints} ] }}
""")
        commands.append([TARGET / "dist/crossdock", "run", "--config", here])
    return Cluster(engine.name, folder / f"with-{engine.name}-1", commands, calls, lambda port: 0)


def need_peers():
    need("go", "golang-go")
    need("javac", "openjdk-17-jdk-headless")
    need("mvn", "maven")


def interleave(rounds, cases, systems, run):
    """Runs each case with each system, in rounds whose order rotates. Returns the results by case and name of the system."""
    runs = {}
    for number in range(rounds):
        for case in cases:
            print(f"round {number + 1} of {rounds}: {case}", file=sys.stderr, flush=True)
            at = number % len(systems)
            for system in systems[at:] + systems[:at]:
                addresses = ",".join(f"127.0.0.1:{port}" for port in system.clients)
                runs.setdefault((*case, system.name), []).append(run(system, addresses, case))
    return runs


def measure(cluster, client, arguments):
    """Runs a client; returns its results with CPU and syncs per write."""
    cpu, syncs = cluster.cpu_seconds(), cluster.syncs()
    output = subprocess.run([*map(str, client), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout
    results = json.loads(output)
    results["cpu"] = (cluster.cpu_seconds() - cpu) / results["writes"] * 1e6
    results["syncs"] = (cluster.syncs() - syncs) / results["writes"]
    return results
