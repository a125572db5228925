#!/usr/bin/env python3
"""Compares bare loops over rdkafka, Apache Camel and Crossdock with one broker of Apache Kafka by the cost of a record.

    benches/kafka/run.py [--rounds N] [--records N] [--sizes BYTES …] [--profile dist|release]

Every record is confirmed by the broker before the offset of the consumed one is stored. Topics have four partitions, records one of 1 000 keys.
CPU is that of the program with its start, without the broker's; Camel, and Crossdock by partition and from AMQP, move a tenth of the records.
The latency cases move one record at a time; "direct" is the time from the producer to the consumer of one topic, through no program.
Rounds interleave the programs; the table shows medians.
tests/services/services starts Kafka and RabbitMQ, which need Java 17 and Maven, and rabbitmq-server; the HTTP cases need nginx and wrk (Debian:
nginx-light, wrk; installed when run as root).
"""

import argparse
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "http"))
import run as bench  # noqa: E402

CONNECTIONS = 64
SECONDS = 4
PARTITIONS = 4
# Records of which the latency is measured.
PACED = 1000


def start_broker(state, service, variable):
    command = [ROOT / "tests/services/services", "up", service]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, CROSSDOCK_SERVICES=state)).stdout
    return re.search(rf"{variable}='(.*)'", output).group(1)


def build(profile):
    print(f"building ({profile}) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", profile, "--quiet", "-p", "crossdock-bench-kafka", "-p", "crossdock-bench-amqp",
                    "-p", "crossdock-cli"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / profile
    camel = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-bench" / "camel-kafka"
    subprocess.run(["mvn", "-q", "-B", "compile", "dependency:copy-dependencies", f"-DoutputDirectory={camel}/lib",
                    f"-Dbench.target={camel}"], cwd=HERE / "camel", check=True)
    return target / "crossdock", target / "bare-kafka", target / "bare", f"{camel}/classes:{camel}/lib/*"


class TestBed:
    """A broker, a backend, and the programs between them."""

    def __init__(self, folder, profile, has_amqp):
        self.folder, self.brokers = folder, start_broker(folder / "services", "kafka", "KAFKA_PLAINTEXT")
        self.amqp = start_broker(folder / "services", "rabbitmq", "RABBITMQ_URL") if has_amqp else ""
        self.crossdock, self.bare, self.bare_amqp, self.classes = build(profile)
        self.web, self.public, self.admin = bench.free_port(), bench.free_port(), bench.free_port()
        self.topics = 0
        bench.need("nginx", "nginx-light")
        bench.need("wrk", "wrk")
        (folder / "nginx.conf").write_text(bench.FIXED_REPLY.replace("@DIR@", str(folder)).replace("@PORT@", str(self.web)))
        command = ["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        self.nginx = bench.Process("nginx", command, self.web, "0,1")

    def run(self, *arguments):
        command = [self.bare, arguments[0], self.brokers, *map(str, arguments[1:])]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def new_topics(self):
        """Creates topics that no program has used."""
        self.topics += 1
        names = {kind: f"bench-{kind}-{self.topics}" for kind in ("from", "to", "dead")}
        self.run("create", PARTITIONS, *names.values())
        return names

    def start_crossdock(self, mode, names):
        settings = {"PUBLIC": f"127.0.0.1:{self.public}", "ADMIN": f"127.0.0.1:{self.admin}", "BROKERS": self.brokers, "GROUP": names["from"],
                    "AMQP": self.amqp, "QUEUE": names["from"], "BACKEND": f"http://127.0.0.1:{self.web}", "FROM": names["from"], "TO": names["to"], "DEAD": names["dead"]}
        folder = self.folder / f"crossdock-{self.topics}"
        (folder / "routes").mkdir(parents=True)
        for path in ("crossdock.yaml", f"routes/{mode}.yaml"):
            text = re.sub(r"@(\w+)@", lambda name: settings[name.group(1)], (HERE / "crossdock" / path).read_text())
            if mode == "from-amqp" and path == "crossdock.yaml":
                text = text.replace("admin:", f'  queues: {{ amqp: {{ url: "{self.amqp}" }} }}\nadmin:')
            (folder / path).write_text(text)
        return bench.Process("crossdock", [self.crossdock, "run", "--config", folder], self.public, "0,1")

    def start_camel(self, names):
        command = ["java", "-XX:+UseParallelGC", "-cp", self.classes, "Move", self.public, self.brokers, names["from"], names["to"]]
        return bench.Process("camel", command, self.public, "0,1")

    def measure(self, program, mode, size, records):
        names = self.new_topics()
        if mode == "intake":
            return self.measure_intake(names, size)
        if mode.startswith("latency"):
            return self.measure_latency(program, mode.removeprefix("latency-"), names)
        if program == "camel" or mode in ("by-partition", "from-amqp"):
            # They take far longer.
            records //= 10
        if mode == "from-amqp":
            return self.measure_from_amqp(names, size, records)
        self.run("fill", names["from"], records, size)
        if program == "bare":
            return self.measure_bare(names, records)
        process = self.start_camel(names) if program == "camel" else self.start_crossdock(mode, names)
        try:
            if mode == "deliver":
                return self.measure_deliver(process, names, records)
            rate = float(self.run("wait", names["to"], records))
            return {"per_s": rate, "cpu": process.cpu_seconds() / records * 1e6, "p50": 0, "p99": 0}
        finally:
            process.stop()

    def measure_from_amqp(self, names, size, records):
        for command in (["declare", self.amqp, names["from"]], ["publish", self.amqp, names["from"], str(records), str(size)]):
            subprocess.run([self.bare_amqp, *command], check=True, stdout=subprocess.DEVNULL)
        process = self.start_crossdock("from-amqp", names)
        try:
            rate = float(self.run("wait", names["to"], records))
            return {"per_s": rate, "cpu": process.cpu_seconds() / records * 1e6, "p50": 0, "p99": 0}
        finally:
            process.stop()

    def measure_latency(self, program, mode, names):
        """The time of single records."""
        to = names["from" if program == "direct" else "to"]
        process = self.start_crossdock(mode, names) if program == "crossdock" else None
        mover = None
        if program == "bare":
            # It ends with the last record, which is one of those that warm it up.
            mover = subprocess.Popen([self.bare, "move", self.brokers, names["from"], to, str(PACED + 100)])
        try:
            p50, p99 = map(float, self.run("pace", names["from"], to, PACED).split())
            return {"per_s": 0, "cpu": 0, "p50": p50, "p99": p99}
        finally:
            if process:
                process.stop()
            if mover:
                mover.wait()

    def measure_deliver(self, process, names, records):
        """The lag tells when the last record was delivered."""
        begun, spent, quiet = time.monotonic(), 0, 0
        while quiet < 10:
            time.sleep(0.05)
            now = process.cpu_seconds()
            quiet, spent = (quiet + 1 if now - spent < 0.005 and now > 0.3 else 0), now
        took = time.monotonic() - begun - quiet * 0.05
        return {"per_s": records / took, "cpu": spent / records * 1e6, "p50": 0, "p99": 0}

    def measure_bare(self, names, records):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [self.bare, "move", self.brokers, names["from"], names["to"], str(records)]
        mover = subprocess.Popen(command)
        waiter = subprocess.Popen([self.bare, "wait", self.brokers, names["to"], str(records)], stdout=subprocess.PIPE, text=True)
        if mover.wait() != 0:
            sys.exit("the bare loop failed")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"per_s": float(waiter.communicate()[0]), "cpu": spent / records * 1e6, "p50": 0, "p99": 0}

    def measure_intake(self, names, size):
        process = self.start_crossdock("intake", names)
        try:
            lua = bench.script(self.folder, f"post-{size}", '{"pad":"' + "x" * (size - 10) + '"}')
            results = bench.load(process, "/take", CONNECTIONS, SECONDS, "0,1", lua)
            return {"per_s": results["per_s"], "cpu": 1e6 / results["per_cpu_s"], "p50": results["p50"], "p99": results["p99"]}
        finally:
            process.stop()


CASES = [("Kafka → Kafka, by key", "by-key", ["bare", "camel", "crossdock"]), ("Kafka → Kafka, by partition", "by-partition", ["crossdock"]),
         ("Kafka → Kafka, by key, effectively once", "by-key-once", ["crossdock"]),
         ("HTTP → Kafka", "intake", ["crossdock"]), ("Kafka → HTTP, by key", "deliver", ["crossdock"]),
         ("AMQP → Kafka", "from-amqp", ["crossdock"]),
         ("latency, Kafka → Kafka, by key", "latency-by-key", ["direct", "bare", "crossdock"]),
         ("latency, Kafka → Kafka, by partition", "latency-by-partition", ["crossdock"]),
         ("latency, Kafka → Kafka, by key, effectively once", "latency-by-key-once", ["crossdock"])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 4096])
    parser.add_argument("--cases", nargs="+", choices=[mode for _, mode, _ in CASES], default=[mode for _, mode, _ in CASES])
    parser.add_argument("--profile", default="dist")
    arguments = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        bed = None
        try:
            bed = TestBed(folder, arguments.profile, "from-amqp" in arguments.cases)
            for number in range(arguments.rounds):
                for title, mode, programs in CASES:
                    if mode not in arguments.cases:
                        continue
                    print(f"round {number + 1} of {arguments.rounds}: {title}", file=sys.stderr, flush=True)
                    for program in programs:
                        for size in arguments.sizes[:1] if mode.startswith("latency") else arguments.sizes:
                            runs.setdefault((title, size, program), []).append(bed.measure(program, mode, size, arguments.records))
        finally:
            if bed:
                bed.nginx.stop()
            subprocess.run([ROOT / "tests/services/services", "down"], env=dict(os.environ, CROSSDOCK_SERVICES=folder / "services"), check=True)
    report(runs, arguments.rounds)


def report(runs, rounds):
    median = lambda key, figure: statistics.median(run[figure] for run in runs[key])
    print(f"\n{rounds} rounds, medians; HTTP with {CONNECTIONS} connections; bare: rdkafka only")
    print("\n| case | bytes | program | records/s | CPU-ms per 1 000 | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for key in runs:
        title, size, program = key
        figures = [f"{median(key, figure):,.{digits}f}" if median(key, figure) else ""
                   for figure, digits in (("per_s", 0), ("cpu", 1), ("p50", 2), ("p99", 2))]
        print(f"| {title} | {'' if title.startswith('latency') else size} | {program} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
