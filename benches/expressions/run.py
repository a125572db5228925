#!/usr/bin/env python3
"""Evaluates CEL expressions over one decoded JSON message with the engine of this project, with the `cel` crate as the gateway used it
before, with that crate alone, and with cel-go; prints nanoseconds of one evaluation.

    benches/expressions/run.py [--rounds N] [--milliseconds N] [--core N]

Each round runs all sides one after another on one core, each workload for so many milliseconds; figures are medians of rounds, in time
of the process on its core, the collector of garbage of Go included. All sides have to give the same values. Needs Rust and Go.
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
SIDES = {"ours": "Crossdock", "before": "cel crate in the gateway", "bare": "cel crate alone", "cel-go": "cel-go"}


def items(count):
    """Lines of an order, with prices of two digits behind the point: text, because Python writes 1.10 as 1.1."""
    line = '{{"sku":"SKU-{0:05}","name":"Thing number {0}","qty":{1},"price":{2}.{3}0,"in_stock":{4}}}'
    return ",".join(line.format(at, at * 7 % 21, 1 + at % 90, 1 + at % 9, "false" if at % 3 else "true") for at in range(count))


ORDER = """{"id":"8c7d2f0e-51c5-4d0a-9a39-0d6b0c1c1d7e","status":"open","amount":250,"quantity":12,"price":1999,"fee":250,
"first":"Margarethe","last":"Oberlechner","currency":"EUR","note":"to be left at the door","priority":3,"gift":false,
"customer":{"number":"K-10077","name":"Margarethe Oberlechner","mail":"m@example.com",
"address":{"street":"Hauptplatz 1","zip":"4020","city":"Linz","country":"AT"}},"tags":["new","web"]}"""


def workloads():
    def of(name, source, message):
        return {"name": name, "source": source, "message": message}

    def lines(count):
        return f'{{"id":"8c7d2f0e","status":"open","items":[{items(count)}]}}'

    return [
        of("path", "req.customer.address.city", ORDER),
        of("comparison", "req.amount > 100 && req.status == 'open'", ORDER),
        of("arithmetic", "req.quantity * req.price + req.fee", ORDER),
        of("concatenation", "req.first + ' ' + req.last", ORDER),
        of("filter and map, 100 items", "req.items.filter(i, i.qty > 10).map(i, i.sku)", lines(100)),
        of("sum of products, 1000 items", "sum(req.items.map(i, i.price * i.qty))", lines(1000)),
    ]


def document(milliseconds):
    """What each side reads; the messages are put in as they are written."""
    def one(workload):
        head = json.dumps({key: value for key, value in workload.items() if key != "message"})
        return f'{head[:-1]}, "message": {workload["message"]}}}'

    listed = ",\n".join(one(workload) for workload in workloads())
    return f'{{"milliseconds": {milliseconds}, "workloads": [{listed}]}}'.encode()


def built(folder):
    """The commands of all sides."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "expressions"
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", target], cwd=HERE, check=True)
    subprocess.run(["go", "build", "-o", folder / "cel-go", "."], cwd=HERE / "cel-go", check=True)
    rust = target / "release/crossdock-bench-expressions"
    return {side: [folder / "cel-go"] if side == "cel-go" else [rust, side] for side in SIDES}


def figures(command, given):
    output = subprocess.run(command, input=given, check=True, stdout=subprocess.PIPE).stdout
    return {line["name"]: line for line in map(json.loads, output.splitlines())}


def same(left, right):
    """Sums of doubles are near those of decimals only."""
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
    middle = {side: {name: statistics.median(values) for name, values in of.items()} for side, of in runs.items()}
    print(f"\n{machine()}")
    print(f"{rounds} rounds of {milliseconds} ms, medians, one core; nanoseconds of one evaluation, and of ours for the same")
    titles = [title for side in SIDES for title in ([SIDES[side]] if side == "ours" else [SIDES[side], "of ours"])]
    print(f"\n| workload | {' | '.join(titles)} | ours, least to most |")
    print(f"| --- |{' ---: |' * (len(titles) + 1)}")
    for workload in workloads():
        name = workload["name"]
        ours, cells = middle["ours"][name], []
        for side in SIDES:
            of = middle[side].get(name)
            cells.append("–" if of is None else f"{of:,.0f}")
            if side != "ours":
                cells.append("–" if of is None else f"{of / ours:.1f}")
        spread = runs["ours"][name]
        print(f"| {name} | {' | '.join(cells)} | {min(spread):,.0f}–{max(spread):,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=int, default=300, help="of each workload in a round (default 300)")
    parser.add_argument("--core", type=int, help="the core that all sides run on (default: the last)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        commands = built(pathlib.Path(name))
        core = max(os.sched_getaffinity(0)) if arguments.core is None else arguments.core
        os.sched_setaffinity(0, {core})
        given, runs = document(arguments.milliseconds), {side: {} for side in SIDES}
        for done in range(arguments.rounds):
            print(f"round {done + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
            results = {}
            for side, command in commands.items():
                for workload, line in figures(command, given).items():
                    runs[side].setdefault(workload, []).append(line["nanoseconds"])
                    expected = results.setdefault(workload, line["result"])
                    if not same(line["result"], expected):
                        sys.exit(f"{workload}: {SIDES[side]} gives {line['result']}, Crossdock {expected}")
    report(runs, arguments.rounds, arguments.milliseconds)


if __name__ == "__main__":
    main()
