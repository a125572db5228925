#!/usr/bin/env python3
"""Compares the evaluation of CEL expressions over a decoded JSON message: the engine of this project, the `cel` crate as the gateway used it
before, that crate alone, and cel-go. Prints nanoseconds per evaluation.

    benches/expressions/run.py [--rounds N] [--milliseconds N] [--core N]

Each round runs all engines one after another on one core, each workload for --milliseconds. Results are medians of CPU time, including Go's
garbage collector. All engines must return equal values. Needs Rust and Go.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENGINES = {"ours": "Crossdock", "before": "cel crate in the gateway", "bare": "cel crate alone", "cel-go": "cel-go"}


def items(count):
    """The lines of an order as JSON text, because Python would write the price 1.10 as 1.1."""
    line = '{{"sku":"SKU-{0:05}","name":"Thing number {0}","qty":{1},"price":{2}.{3}0,"in_stock":{4}}}'
    return ",".join(line.format(at, at * 7 % 21, 1 + at % 90, 1 + at % 9, "false" if at % 3 else "true") for at in range(count))


ORDER = """{"id":"8c7d2f0e-51c5-4d0a-9a39-0d6b0c1c1d7e","status":"open","amount":250,"quantity":12,"price":1999,"fee":250,
"first":"Margarethe","last":"Oberlechner","currency":"EUR","note":"to be left at the door","priority":3,"gift":false,
"customer":{"number":"K-10077","name":"Margarethe Oberlechner","mail":"m@example.com",
"address":{"street":"Hauptplatz 1","zip":"4020","city":"Linz","country":"AT"}},"tags":["new","web"]}"""


def workloads():
    def workload(name, source, message):
        return {"name": name, "source": source, "message": message}

    def lines(count):
        return f'{{"id":"8c7d2f0e","status":"open","items":[{items(count)}]}}'

    return [
        workload("path", "req.customer.address.city", ORDER),
        workload("comparison", "req.amount > 100 && req.status == 'open'", ORDER),
        workload("arithmetic", "req.quantity * req.price + req.fee", ORDER),
        workload("concatenation", "req.first + ' ' + req.last", ORDER),
        workload("filter and map, 100 items", "req.items.filter(i, i.qty > 10).map(i, i.sku)", lines(100)),
        workload("sum of products, 1000 items", "sum(req.items.map(i, i.price * i.qty))", lines(1000)),
    ]


def document(milliseconds):
    """The input of the engines. Messages are inserted as text, to keep their numbers."""
    def one(workload):
        head = json.dumps({key: value for key, value in workload.items() if key != "message"})
        return f'{head[:-1]}, "message": {workload["message"]}}}'

    entries = ",\n".join(one(workload) for workload in workloads())
    return f'{{"milliseconds": {milliseconds}, "workloads": [{entries}]}}'.encode()


def build(folder):
    """Builds the engines; returns the command of each."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "expressions"
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", target], cwd=HERE, check=True)
    subprocess.run(["go", "build", "-o", folder / "cel-go", "."], cwd=HERE / "cel-go", check=True)
    rust = target / "release/crossdock-bench-expressions"
    return {engine: [folder / "cel-go"] if engine == "cel-go" else [rust, engine] for engine in ENGINES}


def measure(command, document):
    output = subprocess.run(command, input=document, check=True, stdout=subprocess.PIPE).stdout
    return {line["name"]: line for line in map(json.loads, output.splitlines())}


def is_equal(left, right):
    """Sums of doubles only approximate those of decimals."""
    if isinstance(left, float) or isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9)
    return left == right


def machine():
    found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    tools = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
             for command in (["rustc", "--version"], ["go", "version"])]
    pinned = re.search(r"cel\.dev/cel-go (v\S+)", (HERE / "cel-go/go.mod").read_text()).group(1)
    crate = re.search(r'cel = \{ version = "=([\d.]+)"', (HERE / "Cargo.toml").read_text()).group(1)
    kind = found.group(1) if found else platform.machine()
    return f"{kind}, {os.cpu_count()} cores, Linux {platform.release()}; {'; '.join(tools)}; cel {crate}; cel-go {pinned}"


def report(runs, rounds, milliseconds):
    medians = {engine: {name: statistics.median(values) for name, values in of.items()} for engine, of in runs.items()}
    print(f"\n{machine()}")
    print(f"{rounds} rounds of {milliseconds} ms, medians, one core; nanoseconds per evaluation, and relative to Crossdock")
    titles = [title for engine in ENGINES for title in ([ENGINES[engine]] if engine == "ours" else [ENGINES[engine], "ratio"])]
    print(f"\n| workload | {' | '.join(titles)} | Crossdock, min–max |")
    print(f"| --- |{' ---: |' * (len(titles) + 1)}")
    for workload in workloads():
        name = workload["name"]
        ours, cells = medians["ours"][name], []
        for engine in ENGINES:
            of = medians[engine].get(name)
            cells.append("–" if of is None else f"{of:,.0f}")
            if engine != "ours":
                cells.append("–" if of is None else f"{of / ours:.1f}")
        spread = runs["ours"][name]
        print(f"| {name} | {' | '.join(cells)} | {min(spread):,.0f}–{max(spread):,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=int, default=300, help="duration of each workload in a round (default: 300)")
    parser.add_argument("--core", type=int, help="the core that all engines run on (default: the last)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        commands = build(pathlib.Path(name))
        core = max(os.sched_getaffinity(0)) if arguments.core is None else arguments.core
        os.sched_setaffinity(0, {core})
        given, runs = document(arguments.milliseconds), {engine: {} for engine in ENGINES}
        for done in range(arguments.rounds):
            print(f"round {done + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
            results = {}
            for engine, command in commands.items():
                for workload, line in measure(command, given).items():
                    runs[engine].setdefault(workload, []).append(line["nanoseconds"])
                    expected = results.setdefault(workload, line["result"])
                    if not is_equal(line["result"], expected):
                        sys.exit(f"{workload}: {ENGINES[engine]} returned {line['result']}, Crossdock {expected}")
    report(runs, arguments.rounds, arguments.milliseconds)


if __name__ == "__main__":
    main()
