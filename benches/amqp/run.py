#!/usr/bin/env python3
"""Runs bare loops over lapin, Apache Camel and Crossdock side by side at one RabbitMQ, and compares what a message costs.

    benches/amqp/run.py [--rounds N] [--messages N] [--sizes BYTES …]

Messages are persistent, queues durable and classic, every publish is confirmed, and a message is acknowledged once that is
so. CPU is that of the process alone, without the broker's. Rounds interleave the programs; the table shows medians.
RabbitMQ is started by tests/services/services; needs Java 17 and Maven for Camel, nginx and wrk (Debian: nginx-light, wrk;
installed when run as root), h2load (nghttp2-client).
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
# HTTP/2 has several calls on a connection.
STREAMS = 8
NGINX = """daemon off; error_log stderr crit; pid @DIR@/nginx.pid; events {} worker_processes 1;
http { access_log off; client_body_temp_path @DIR@; proxy_temp_path @DIR@; fastcgi_temp_path @DIR@; uwsgi_temp_path @DIR@;
scgi_temp_path @DIR@; keepalive_requests 1000000;
server { listen 127.0.0.1:@PORT@; location / { default_type application/json; return 200 "{}"; } } }
"""


def broker(state):
    command = [ROOT / "tests/services/services", "up", "rabbitmq"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, CROSSDOCK_SERVICES=state)).stdout
    return re.search(r"RABBITMQ_URL='(.*)'", told).group(1)


def built():
    print("building (release) …", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "crossdock-bench-amqp"], cwd=ROOT, check=True)
    crossdock = bench.crossdock_binary()
    target = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-bench" / "camel"
    subprocess.run(["mvn", "-q", "-B", "compile", "dependency:copy-dependencies", f"-DoutputDirectory={target}/lib",
                    f"-Dbench.target={target}"], cwd=HERE / "camel", check=True)
    return crossdock, crossdock.parent / "bare", f"{target}/classes:{target}/lib/*"


class Bed:
    """A broker, a service behind, and the programs that stand between."""

    def __init__(self, folder):
        self.folder, self.url = folder, broker(folder / "services")
        self.port = re.search(r":(\d+)/", self.url).group(1)
        self.crossdock, self.bare, self.classes = built()
        self.web, self.public, self.internal = bench.free_port(), bench.free_port(), bench.free_port()
        self.admin = bench.free_port()
        (folder / "nginx.conf").write_text(NGINX.replace("@DIR@", str(folder)).replace("@PORT@", str(self.web)))
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
        """A program in the mode, warm: a compiler of a virtual machine has had its time."""
        process = self.start_crossdock() if program == "crossdock" else self.start_camel(mode)
        for _ in range(3 if program == "camel" else 1):
            self.measured(process, mode, 300, 4000)
        return process

    def measured(self, process, mode, size, messages):
        if mode == "note":
            return self.called(process, size)
        if mode in ("intake", "ask"):
            return self.posted(process, mode, size)
        queue, end = f"bench-{mode}", "bench-to"
        self.run("declare", end)
        before, begun = process.cpu_seconds(), time.monotonic()
        # The queue fills while it is emptied, so that nothing has to be held back.
        self.run("publish", queue, messages, size)
        if mode == "bridge":
            self.run("wait", end, messages)
        else:
            self.settled(queue, process)
        spent, time_taken = process.cpu_seconds() - before, time.monotonic() - begun
        return {"per_s": messages / time_taken, "cpu": spent / messages * 1e6, "p50": 0, "p99": 0}

    def settled(self, queue, process):
        """Waits until nothing is left, and the program has come to rest."""
        quiet, spent = 0, process.cpu_seconds()
        while quiet < 3:
            time.sleep(0.02)
            now = process.cpu_seconds()
            quiet, spent = (quiet + 1 if now == spent else 0), now

    def posted(self, process, mode, size):
        path = {"intake": "/take", "ask": "/ask"}[mode]
        lua = bench.script(self.folder, f"post-{size}", '{"pad":"' + "x" * (size - 10) + '"}')
        self.run("declare", "bench-to")
        figures = bench.load(process, path, CONNECTIONS, SECONDS, "0,1", lua)
        return {"per_s": figures["per_s"], "cpu": 1e6 / figures["per_cpu_s"], "p50": figures["p50"], "p99": figures["p99"]}

    def called(self, process, size):
        """Calls of gRPC: one field of text, in a frame."""
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
            # h2load takes every answer of HTTP for a good one; calls are cancelled where a load ends.
            counted = re.findall(r'^crossdock_route_requests_total\{.*code="(\w+)"\} ([1-9]\d*)$', metrics.read().decode(), re.M)
        if failed := [(code, count) for code, count in counted if code not in ("ok", "cancelled")]:
            sys.exit(f"crossdock failed {failed} calls")
        done = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
        return {"per_s": done / SECONDS, "cpu": spent / done * 1e6, "p50": bench.to_ms(mean), "p99": 0}

    def bare_loop(self, mode, size, messages):
        self.run("declare", "bench-to", "bench-bridge")
        if mode == "bridge":
            # As with the others: filled while it is emptied.
            filling = subprocess.Popen([self.bare, "publish", self.url, "bench-bridge", str(messages), str(size)])
        command = {"bridge": ["bridge", self.url, "bench-bridge", "bench-to", messages],
                   "intake": ["publish", self.url, "bench-to", messages, size]}[mode]
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([self.bare, *map(str, command)], check=True)
        took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if mode == "bridge":
            filling.wait()
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
        bed = Bed(folder)
        server = subprocess.Popen([bed.bare, "serve", bed.url, "bench-ask"])
        try:
            for number in range(arguments.rounds):
                for title, mode, programs in CASES:
                    print(f"round {number + 1} of {arguments.rounds}: {title}", file=sys.stderr, flush=True)
                    for program in programs:
                        process = bed.warm_start(program, mode) if program != "bare" else None
                        try:
                            for size in arguments.sizes:
                                figures = bed.measured(process, mode, size, arguments.messages) if process else \
                                    bed.bare_loop(mode, size, arguments.messages)
                                runs.setdefault((title, size, program), []).append(figures)
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
    middle = lambda key, figure: statistics.median(run[figure] for run in runs[key])
    print(f"\n{rounds} rounds, medians; HTTP with {CONNECTIONS} connections; bare: lapin alone, which speaks no HTTP; of gRPC, the time is the mean")
    print("\n| case | bytes | program | messages/s | CPU-ms per 1 000 | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for key in runs:
        title, size, program = key
        times = [f"{middle(key, figure):.1f}" if middle(key, figure) else "" for figure in ("p50", "p99")]
        print(f"| {title} | {size} | {program} | {middle(key, 'per_s'):,.0f} | {middle(key, 'cpu'):.1f} | {times[0]} | {times[1]} |")


if __name__ == "__main__":
    main()
