#!/usr/bin/env python3
"""Compares bare loops over lapin, Apache Camel and Crossdock with one RabbitMQ by the cost of a message.

    benches/amqp/run.py [--rounds N] [--messages N] [--sizes BYTES …]

Messages are persistent, queues durable and classic. Every publish is confirmed before the consumed message is acknowledged.
CPU is that of the program, without the broker's. Rounds interleave the programs; the table shows medians.
tests/services/services starts RabbitMQ. Needs Java 17 and Maven for Camel, and nginx, wrk and h2load (Debian: nginx-light,
wrk, nghttp2-client; installed when run as root).
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
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "http"))
import run as bench  # noqa: E402

CONNECTIONS = 64
SECONDS = 4
# Concurrent calls on an HTTP/2 connection.
STREAMS = 8


def start_broker(state):
    command = [ROOT / "tests/services/services", "up", "rabbitmq"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, CROSSDOCK_SERVICES=state)).stdout
    return re.search(r"RABBITMQ_URL='(.*)'", output).group(1)


def build():
    print("building (dist) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "-p", "crossdock-bench-amqp"], cwd=ROOT, check=True)
    crossdock = bench.crossdock_binary()
    target = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-bench" / "camel"
    subprocess.run(["mvn", "-q", "-B", "compile", "dependency:copy-dependencies", f"-DoutputDirectory={target}/lib",
                    f"-Dbench.target={target}"], cwd=HERE / "camel", check=True)
    return crossdock, crossdock.parent / "bare", f"{target}/classes:{target}/lib/*"


class TestBed:
    """A broker, a backend, and the programs between them."""

    def __init__(self, folder):
        self.folder, self.url = folder, start_broker(folder / "services")
        self.port = re.search(r":(\d+)/", self.url).group(1)
        self.crossdock, self.bare, self.classes = build()
        self.web, self.public, self.internal = bench.free_port(), bench.free_port(), bench.free_port()
        self.admin = bench.free_port()
        (folder / "nginx.conf").write_text(bench.FIXED_REPLY.replace("@DIR@", str(folder)).replace("@PORT@", str(self.web)))
        bench.need("nginx", "nginx-light")
        bench.need("wrk", "wrk")
        bench.need("h2load", "nghttp2-client")
        self.declare()
        command = ["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        self.nginx = bench.Process("nginx", command, self.web, "0,1")

    def run(self, *arguments):
        subprocess.run([self.bare, arguments[0], self.url, *map(str, arguments[1:])], check=True, stdout=subprocess.DEVNULL)

    def declare(self):
        self.run("declare", "bench-to", "bench-ask", "bench-bridge", "bench-deliver")

    def start_crossdock(self):
        environment = {"BENCH_PUBLIC": f"127.0.0.1:{self.public}", "BENCH_ADMIN": f"127.0.0.1:{self.admin}", "BENCH_INTERNAL": f"127.0.0.1:{self.internal}",
                       "BENCH_BROKER": self.url, "BENCH_BACKEND": f"http://127.0.0.1:{self.web}"}
        return bench.Process("crossdock", [self.crossdock, "run", "--config", HERE / "crossdock"], self.public, "0,1", environment)

    def start_camel(self, mode):
        command = ["java", "-XX:+UseParallelGC", "-cp", self.classes, "Bridge", mode, self.public, self.port, f"bench-{mode}", "bench-to", self.web]
        return bench.Process("camel", command, self.public, "0,1")

    def warm_start(self, program, mode):
        """Starts a program and warms it up, so that the JIT compiler has finished."""
        process = self.start_crossdock() if program == "crossdock" else self.start_camel(mode)
        for _ in range(3 if program == "camel" else 1):
            self.measure(process, mode, 300, 4000)
        return process

    def measure(self, process, mode, size, messages):
        if mode == "note":
            return self.measure_grpc(process, size)
        if mode in ("intake", "ask"):
            return self.measure_http(process, mode, size)
        queue, end = f"bench-{mode}", "bench-to"
        self.run("declare", end)
        before, begun = process.cpu_seconds(), time.monotonic()
        # Publishing and consuming overlap, so that the program need not be held back.
        self.run("publish", queue, messages, size)
        if mode == "bridge":
            self.run("wait", end, messages)
        else:
            self.wait_until_idle(process)
        spent, time_taken = process.cpu_seconds() - before, time.monotonic() - begun
        return {"per_s": messages / time_taken, "cpu": spent / messages * 1e6, "p50": 0, "p99": 0}

    def wait_until_idle(self, process):
        """Waits until the program uses no CPU."""
        quiet, spent = 0, process.cpu_seconds()
        while quiet < 3:
            time.sleep(0.02)
            now = process.cpu_seconds()
            quiet, spent = (quiet + 1 if now == spent else 0), now

    def measure_http(self, process, mode, size):
        path = {"intake": "/take", "ask": "/ask"}[mode]
        lua = bench.script(self.folder, f"post-{size}", '{"pad":"' + "x" * (size - 10) + '"}')
        self.run("declare", "bench-to")
        results = bench.load(process, path, CONNECTIONS, SECONDS, "0,1", lua)
        return {"per_s": results["per_s"], "cpu": 1e6 / results["per_cpu_s"], "p50": results["p50"], "p99": results["p99"]}

    def measure_grpc(self, process, size):
        """Sends gRPC calls, whose message has one string field."""
        text = b"x" * (size - 10)
        length = bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
        message = b"\x0a" + length + text
        body = self.folder / "note.grpc"
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        command = ["h2load", "-t1", f"-c{CONNECTIONS // STREAMS}", f"-m{STREAMS}", f"-D{SECONDS}", "-d", body,
                   "-Hcontent-type: application/grpc", "-Hte: trailers", f"http://127.0.0.1:{self.internal}/bench.v1.Notes/Ask"]
        before = process.cpu_seconds()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = process.cpu_seconds() - before
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as metrics:
            # h2load counts every 2xx response as a success, and cancels calls at the end.
            counts = re.findall(r'^crossdock_route_requests_total\{.*code="(\w+)"\} ([1-9]\d*)$', metrics.read().decode(), re.M)
        if failed := [(code, count) for code, count in counts if code not in ("ok", "cancelled")]:
            sys.exit(f"crossdock failed {failed} calls")
        done = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
        return {"per_s": done / SECONDS, "cpu": spent / done * 1e6, "p50": bench.to_ms(mean), "p99": 0}

    def measure_bare(self, mode, size, messages):
        self.run("declare", "bench-to", "bench-bridge")
        if mode == "bridge":
            # As in `measure`: publishing and consuming overlap.
            publisher = subprocess.Popen([self.bare, "publish", self.url, "bench-bridge", str(messages), str(size)])
        command = {"bridge": ["bridge", self.url, "bench-bridge", "bench-to", messages],
                   "intake": ["publish", self.url, "bench-to", messages, size]}[mode]
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([self.bare, *map(str, command)], check=True)
        took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if mode == "bridge":
            publisher.wait()
        return {"per_s": messages / took, "cpu": spent / messages * 1e6, "p50": 0, "p99": 0}


CASES = [("HTTP → AMQP", "intake", ["bare", "camel", "crossdock"]), ("AMQP → AMQP", "bridge", ["bare", "camel", "crossdock"]),
         ("AMQP → HTTP", "deliver", ["camel", "crossdock"]), ("HTTP → AMQP, request and reply", "ask", ["crossdock"]),
         ("gRPC → AMQP, request and reply", "note", ["crossdock"])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 4096])
    arguments = parser.parse_args()
    runs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        bed = TestBed(folder)
        server = subprocess.Popen([bed.bare, "serve", bed.url, "bench-ask"])
        try:
            for number in range(arguments.rounds):
                for title, mode, programs in CASES:
                    print(f"round {number + 1} of {arguments.rounds}: {title}", file=sys.stderr, flush=True)
                    for program in programs:
                        process = bed.warm_start(program, mode) if program != "bare" else None
                        try:
                            for size in arguments.sizes:
                                results = bed.measure(process, mode, size, arguments.messages) if process else \
                                    bed.measure_bare(mode, size, arguments.messages)
                                runs.setdefault((title, size, program), []).append(results)
                        finally:
                            if process:
                                process.stop()
        finally:
            server.terminate()
            server.wait()
            bed.nginx.stop()
            subprocess.run([ROOT / "tests/services/services", "down"], env=dict(os.environ, CROSSDOCK_SERVICES=folder / "services"), check=True)
    report(runs, arguments.rounds)


def report(runs, rounds):
    median = lambda key, figure: statistics.median(run[figure] for run in runs[key])
    print(f"\n{rounds} rounds, medians; HTTP with {CONNECTIONS} connections; bare: lapin only, without HTTP; the p50 of gRPC is the mean")
    print("\n| case | bytes | program | messages/s | CPU-ms per 1 000 | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for key in runs:
        title, size, program = key
        times = [f"{median(key, figure):.1f}" if median(key, figure) else "" for figure in ("p50", "p99")]
        print(f"| {title} | {size} | {program} | {median(key, 'per_s'):,.0f} | {median(key, 'cpu'):.1f} | {times[0]} | {times[1]} |")


if __name__ == "__main__":
    main()
