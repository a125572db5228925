"""Apache Kafka, from Maven Central: one broker, or three."""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from service import CACHE, Service, free_port, install, is_zombie, spawn, start_time, wait

HERE = pathlib.Path(__file__).resolve().parent / "kafka-server"
# Small, quick to start, and quick to notice lost brokers and consumers.
JAVA = ["-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "2000",
    "group.consumer.session.timeout.ms": "6000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.backoff.ms": "500",
    "log.initial.task.delay.ms": "500",
}
USER, PASSWORD = "gateway", "a:secret"


def libraries():
    """The folder of the server's libraries; downloads them if necessary."""
    version = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:16]
    folder = CACHE / "kafka" / version
    if (folder / "complete").exists():
        return folder
    # With a compiler, for the peers in Java.
    install("javac", "openjdk-17-jdk-headless")
    install("mvn", "maven")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy = ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}",
            "-DincludeScope=runtime"]
    if subprocess.run(copy).returncode != 0:
        sys.exit("Kafka cannot be downloaded from Maven Central")
    (folder / "complete").touch()
    return folder


class Kafka(Service):
    BROKERS = 1

    def __init__(self, name="kafka"):
        super().__init__(name)

    def install(self):
        libraries()

    def up(self):
        if saved := self.running():
            return saved
        self.down()
        self.install()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="crossdock-kafka-"))
        names = ["PLAINTEXT", "CONTROLLER", "SASL_PLAINTEXT"]
        if os.environ.get("CROSSDOCK_KAFKA_TLS"):
            names += ["SSL", "SASL_SSL"]
        ports = [{name: free_port() for name in names} for _ in range(self.BROKERS)]
        for index in range(self.BROKERS):
            self.format(folder, ports, index)
        processes = [self.spawn(folder, index) for index in range(self.BROKERS)]
        self.save([process.pid for process in processes], folder, {"PORTS": ports})
        for index, process in enumerate(processes):
            self.wait(folder, index, process)
        return self.saved_with_addresses([process.pid for process in processes], folder, ports)

    def crash(self):
        """Kills a broker and restarts it with its data: the one that CROSSDOCK_KAFKA_BROKER names, from 0, or else each in turn."""
        if self.running() is None:
            sys.exit("Kafka is not running")
        chosen = os.environ.get("CROSSDOCK_KAFKA_BROKER")
        for index in range(self.BROKERS) if chosen is None else [int(chosen)]:
            saved = self.running()
            folder, pids = pathlib.Path(saved["folder"]), [pid for pid, _ in saved["processes"]]
            os.kill(pids[index], signal.SIGKILL)
            while start_time(pids[index]) is not None and not is_zombie(pids[index]):
                time.sleep(0.02)
            time.sleep(float(os.environ.get("CROSSDOCK_DOWN_SECONDS", "0")))
            process = self.spawn(folder, index)
            pids[index] = process.pid
            self.save(pids, folder, saved["variables"])
            self.wait(folder, index, process)
        return self.saved()

    def format(self, folder, ports, index):
        """Writes the settings of a broker, and creates its log folder."""
        own = ports[index]
        settings = SETTINGS | {
            "node.id": str(index),
            "log.dirs": str(folder / f"data-{index}"),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in own.items()),
            "advertised.listeners": ",".join(
                f"{name}://{'localhost' if 'SSL' in name.split('_')[-1] else '127.0.0.1'}:{port}"
                for name, port in own.items() if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in own),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        }
        replicas = str(self.BROKERS)
        for name in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"]:
            settings[f"{name}.replication.factor"] = replicas
        for name in ["transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr", "min.insync.replicas"]:
            settings[name] = str((self.BROKERS + 1) // 2)
        settings["default.replication.factor"] = replicas
        controllers = [f"127.0.0.1:{ports[other]['CONTROLLER']}" for other in range(self.BROKERS)]
        if self.BROKERS == 1:
            settings["controller.quorum.bootstrap.servers"] = controllers[0]
        else:
            # Consumers of a rack read its replica (KIP-392).
            settings["broker.rack"] = f"rack-{index}"
            settings["replica.selector.class"] = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
            settings["controller.quorum.voters"] = ",".join(f"{id}@{address}" for id, address in enumerate(controllers))
        for name in own:
            if name.startswith("SASL"):
                prefix = f"listener.name.{name.lower()}"
                settings[f"{prefix}.plain.sasl.jaas.config"] = (
                    f"org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";")
                # Takes tokens without a signature.
                settings[f"{prefix}.oauthbearer.sasl.jaas.config"] = (
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";")
                for digest in ["256", "512"]:
                    settings[f"{prefix}.scram-sha-{digest}.sasl.jaas.config"] = (
                        "org.apache.kafka.common.security.scram.ScramLoginModule required;")
        if certificates := os.environ.get("CROSSDOCK_KAFKA_TLS"):
            certificates = pathlib.Path(certificates)
            chain = (certificates / "server.key").read_text() + (certificates / "server.pem").read_text()
            (folder / "server-with-key.pem").write_text(chain)
            settings |= {
                "ssl.keystore.type": "PEM", "ssl.keystore.location": str(folder / "server-with-key.pem"),
                "ssl.truststore.type": "PEM", "ssl.truststore.location": str(certificates / "ca.pem"),
                "listener.name.ssl.ssl.client.auth": "required",
            }
        file = folder / f"broker-{index}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = ["kafka.tools.StorageTool", "format", "-t", "c3Jvc3Nkb2NrLXRlc3RzLQ", "-c", str(file)]
        command += ["--standalone"] if self.BROKERS == 1 else []
        for digest in ["256", "512"]:
            command += ["--add-scram", f"SCRAM-SHA-{digest}=[name={USER},password={PASSWORD}]"]
        subprocess.run(self.java(*command), check=True, stdout=subprocess.DEVNULL)

    def java(self, *arguments):
        return ["java", *JAVA, "-cp", f"{libraries()}/*", *arguments]

    def spawn(self, folder, index):
        log = folder / f"broker-{index}.log"
        log.unlink(missing_ok=True)
        return spawn(self.java("kafka.Kafka", str(folder / f"broker-{index}.properties")), dict(os.environ), log)

    def wait(self, folder, index, process):
        log = folder / f"broker-{index}.log"
        wait(lambda: "Kafka Server started" in log.read_text(errors="replace"), process, log, f"Kafka broker {index}")

    def saved_with_addresses(self, pids, folder, ports):
        variables = {"PORTS": ports, "KAFKA_LIBRARIES": str(libraries()), "KAFKA_USER": USER, "KAFKA_PASSWORD": PASSWORD}
        for name in ports[0]:
            if name != "CONTROLLER":
                host = "localhost" if name.endswith("SSL") else "127.0.0.1"
                variables[f"KAFKA_{name}"] = ",".join(f"{host}:{own[name]}" for own in ports)
        return self.save(pids, folder, variables)


class Kafka3(Kafka):
    BROKERS = 3

    def __init__(self):
        super().__init__("kafka3")
