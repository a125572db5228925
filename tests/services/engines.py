"""Engines of coordination: ZooKeeper and etcd of Debian's packages and Consul, with three servers each, and Redis."""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from service import CACHE, Service, free_port, install, is_listening, is_zombie, spawn, start_time, wait


# The password that clients need.
PASSWORD = os.environ.get("CROSSDOCK_ENGINE_PASSWORD")
CONSUL = pathlib.Path(__file__).resolve().parent / "consul-server"


class Engine(Service):
    """Servers of one system. A subclass says how one is started."""

    SERVERS = 3

    def up(self):
        if saved := self.running():
            return saved
        self.down()
        self.install()
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"crossdock-{self.name}-"))
        ports = [self.ports() for _ in range(self.SERVERS)]
        processes = [self.spawn(folder, ports, index) for index in range(self.SERVERS)]
        state = self.remember(folder, ports, [process.pid for process in processes])
        try:
            for index, process in enumerate(processes):
                self.wait(folder, ports, index, process)
            if PASSWORD:
                self.secure(ports)
        except (SystemExit, subprocess.CalledProcessError):
            self.down()
            raise
        return state

    def crash(self):
        """Kills a server and restarts it with its data: the one that CROSSDOCK_ENGINE_SERVER names, from 0, or else each in turn."""
        saved = self.running()
        if saved is None:
            sys.exit(f"{self.name} is not running")
        folder, ports, pids = pathlib.Path(saved["folder"]), saved["variables"]["PORTS"], [pid for pid, _ in saved["processes"]]
        chosen = os.environ.get("CROSSDOCK_ENGINE_SERVER")
        for index in range(self.SERVERS) if chosen is None else [int(chosen)]:
            os.kill(pids[index], signal.SIGKILL)
            while start_time(pids[index]) is not None and not is_zombie(pids[index]):
                time.sleep(0.02)
            time.sleep(float(os.environ.get("CROSSDOCK_DOWN_SECONDS", "0")))
            process = self.spawn(folder, ports, index)
            pids[index] = process.pid
            self.remember(folder, ports, pids)
            self.wait(folder, ports, index, process)
        return self.saved()

    def remember(self, folder, ports, pids):
        name = self.name.upper()
        return self.save(pids, folder, {
            f"{name}_SERVERS": ",".join(f"127.0.0.1:{own['client']}" for own in ports),
            f"{name}_PIDS": ",".join(map(str, pids)), f"{name}_VERSION": self.version(), "PORTS": ports,
        })

    def secure(self, ports):
        """Lets the servers require PASSWORD, of the user `root` where there are users."""

    def spawn(self, folder, ports, index):
        return spawn([str(word) for word in self.command(folder, ports, index)], dict(os.environ), folder / f"{index}.log")

    def wait(self, folder, ports, index, process):
        wait(lambda: is_listening(ports[index]["client"]), process, folder / f"{index}.log", self.name)


def debian_version(package):
    return subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True).stdout.split("-")[0].split(":")[-1]


class ZooKeeper(Engine):
    def __init__(self):
        super().__init__("zookeeper")

    def install(self):
        install("java", "openjdk-17-jre-headless")
        install("/usr/share/java/zookeeper.jar", "zookeeper")

    def version(self):
        return debian_version("zookeeper")

    def ports(self):
        return {"client": free_port(), "peer": free_port(), "vote": free_port()}

    def command(self, folder, ports, index):
        data = folder / f"data-{index}"
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(str(index + 1))
        servers = "".join(f"server.{n}=127.0.0.1:{own['peer']}:{own['vote']}\n" for n, own in enumerate(ports, 1))
        (data / "zoo.cfg").write_text(f"tickTime=500\ninitLimit=20\nsyncLimit=6\nminSessionTimeout=1000\ndataDir={data}\nclientPort={ports[index]['client']}\n"
                                      f"clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n{servers}")
        jars = "/usr/share/java/zookeeper.jar:/etc/zookeeper/conf"
        return ["java", "-Xms32m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dznode.container.checkIntervalMs=2000", "-cp", jars,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain", data / "zoo.cfg"]


class Etcd(Engine):
    def __init__(self):
        super().__init__("etcd")

    def install(self):
        install("etcd", "etcd-server")
        install("etcdctl", "etcd-client")

    def version(self):
        return debian_version("etcd-server")

    def secure(self, ports):
        environment = dict(os.environ, ETCDCTL_API="3")
        for words in (["user", "add", f"root:{PASSWORD}"], ["user", "grant-role", "root", "root"], ["auth", "enable"]):
            command = ["etcdctl", "--endpoints", f"127.0.0.1:{ports[0]['client']}", *words]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    def ports(self):
        return {"client": free_port(), "peer": free_port()}

    def command(self, folder, ports, index):
        client, peer = (f"http://127.0.0.1:{ports[index][name]}" for name in ("client", "peer"))
        initial = ",".join(f"e{n}=http://127.0.0.1:{own['peer']}" for n, own in enumerate(ports))
        return ["etcd", "--name", f"e{index}", "--data-dir", folder / f"data-{index}", "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", initial, "--heartbeat-interval", "100",
                "--election-timeout", "1000", "--logger", "zap", "--log-level", "warn"]


class Consul(Engine):
    """Compiled, which takes seven minutes of CPU time once."""

    def __init__(self):
        super().__init__("consul")

    def install(self):
        if self.program().exists():
            return
        if shutil.which("go") is None:
            sys.exit("go is missing: install Go 1.26")
        self.program().parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ, GOFLAGS="-buildvcs=false -mod=readonly", CGO_ENABLED="0")
        subprocess.run(["go", "build", "-trimpath", "-ldflags=-s -w", "-o", self.program(), "."], cwd=CONSUL, env=environment, check=True)

    def program(self):
        return CACHE / "consul" / hashlib.sha256((CONSUL / "go.mod").read_bytes()).hexdigest()[:16] / "consul"

    def version(self):
        return re.search(r"hashicorp/consul v(\S+)", (CONSUL / "go.mod").read_text()).group(1)

    def ports(self):
        return {"client": free_port(), "server": free_port(), "serf": free_port()}

    def command(self, folder, ports, index):
        own = ports[index]
        joined = [flag for other in ports for flag in ("-retry-join", f"127.0.0.1:{other['serf']}")]
        # A server that is killed and comes back would vote no more if it was removed meanwhile.
        settings = ["disable_update_check=true", "performance{raft_multiplier=1}", "autopilot{cleanup_dead_servers=false}"]
        return [self.program(), "agent", "-server", "-bootstrap-expect", len(ports), "-node", f"s{index}", "-bind", "127.0.0.1", "-client", "127.0.0.1",
                "-http-port", own["client"], "-server-port", own["server"], "-serf-lan-port", own["serf"], "-serf-wan-port", -1, "-dns-port", -1, "-grpc-port", -1, "-grpc-tls-port", -1,
                "-retry-interval", "1s", "-data-dir", folder / f"data-{index}", "-disable-host-node-id", *joined,
                *(word for setting in settings for word in ("-hcl", setting))]


class Redis(Engine):
    SERVERS = 1

    def __init__(self):
        super().__init__("redis")

    def install(self):
        install("redis-server", "redis-server")

    def version(self):
        return debian_version("redis-server")

    def ports(self):
        return {"client": free_port()}

    def command(self, folder, ports, index):
        return ["redis-server", "--port", ports[index]["client"], "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--appendfsync", "always",
                "--save", "", *(["--requirepass", PASSWORD] if PASSWORD else [])]
