#!/usr/bin/env python3
"""Measures the memory that a highly compressed batch takes while it is consumed, for each codec.

    benches/kafka/memory.py [--records N] [--size BYTES] [--profile dist|release]

A batch of records of zeros is written with aiokafka and consumed by a route that drops its records. The table shows the length of the batch before and
after compression, and the peak of the process's resident memory above that of an idle one. tests/run installs aiokafka.
"""

import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
specification = importlib.util.spec_from_file_location("kafka_run", HERE / "run.py")
kafka = importlib.util.module_from_spec(specification)
specification.loader.exec_module(kafka)

PYTHON = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "crossdock-tests/kafka/venv/bin/python"
# Below the brokers' limit of 1 MiB for a compressed batch.
CODECS = {"gzip": 1, "zstd": 1, "lz4": 1, "snappy": 0.15}
WRITER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer
async def main(brokers, topic, codec, count, size):
    producer = AIOKafkaProducer(bootstrap_servers=brokers, compression_type=codec, max_batch_size=1 << 30, max_request_size=1 << 30)
    await producer.start()
    batch = producer.create_batch()
    for _ in range(int(count)):
        batch.append(key=None, value=bytes(int(size)), timestamp=None)
    batch.close()
    await (await producer.send_batch(batch, topic, partition=0))
    print(batch.size())
    await producer.stop()
asyncio.run(main(*sys.argv[1:]))
"""
ROUTES = """
version: 1
services: { out: { kafka: { brokers: "@BROKERS@", operations: { put: { topic: unused } } } } }
routes:
  drop:
    from: { kafka: { listen: topics, topic: "@TOPIC@", reject: discard } }
    steps: [ { filter: "1 == 2" }, { send: out.put } ]
"""


def peak_of(crossdock, brokers, topic, count, folder):
    """The peak of resident memory in bytes, once all records of a topic are consumed."""
    (folder / "routes").mkdir(parents=True, exist_ok=True)
    admin = kafka.bench.free_port()
    (folder / "crossdock.yaml").write_text(
        f'version: 1\nlisteners: {{ topics: {{ kafka: {{ brokers: "{brokers}", group: {topic} }} }} }}\nadmin: {{ bind: "127.0.0.1:{admin}" }}\n'
        "log: { level: error }\n")
    (folder / "routes/drop.yaml").write_text(ROUTES.replace("@BROKERS@", brokers).replace("@TOPIC@", topic))
    process = subprocess.Popen([crossdock, "run", "--config", folder])
    try:
        for _ in range(300):
            time.sleep(0.1)
            try:
                metrics = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read().decode()
            except OSError:
                continue
            if f'crossdock_route_requests_total{{route="drop",code="ok"}} {count}\n' in metrics:
                break
        else:
            sys.exit(f"{topic} was not consumed in time")
        time.sleep(1)
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=900)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--profile", default="dist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            brokers = kafka.start_broker(folder / "services", "kafka", "KAFKA_PLAINTEXT")
            subprocess.run(["cargo", "build", "--profile", arguments.profile, "--quiet", "-p", "crossdock-cli"], cwd=ROOT, check=True)
            crossdock = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / arguments.profile / "crossdock"
            peer = [PYTHON, ROOT / "tests/peers/kafka/peer.py", brokers, "create", "idle", *CODECS]
            subprocess.run(peer, check=True)
            idle = peak_of(crossdock, brokers, "idle", 0, folder / "idle")
            print("| codec | batch, MB | compressed, kB | ratio | peak above idle, MB |\n| --- | ---: | ---: | ---: | ---: |")
            for codec, part in CODECS.items():
                count = int(arguments.records * part)
                write = [PYTHON, "-c", WRITER, brokers, codec, codec, str(count), str(arguments.size)]
                compressed = int(subprocess.run(write, check=True, capture_output=True, text=True).stdout)
                peak = peak_of(crossdock, brokers, codec, count, folder / codec) - idle
                size = count * arguments.size
                print(f"| {codec} | {size / 1e6:.0f} | {compressed / 1e3:.0f} | {size / compressed:.0f} | {peak / 1e6:.0f} |", flush=True)
        finally:
            command = [ROOT / "tests/services/services", "down"]
            subprocess.run(command, env=dict(os.environ, CROSSDOCK_SERVICES=folder / "services"), check=True)


if __name__ == "__main__":
    main()
