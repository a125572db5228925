"""Evaluates expressions of CEL with cel-cpp, through its package for Python (cel-expr-python).

Reads and writes the same lines of JSON as cmd/evaluate; see there. Only values of scalars, lists and maps come back.
"""

import base64
import datetime
import json
import re
import sys

from cel_expr_python import cel

EXTENSIONS = ["bindings", "math", "strings", "optional", "sets", "lists", "encoders", "two-var-comprehensions"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
SIMPLE = {
    "int": cel.Type.INT,
    "uint": cel.Type.UINT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "bytes": cel.Type.BYTES,
    "bool": cel.Type.BOOL,
    "null": cel.Type.NULL,
    "dyn": cel.Type.DYN,
    "timestamp": cel.Type.TIMESTAMP,
    "duration": cel.Type.DURATION,
}


class NoTag(Exception):
    """A value that does not come back whole: a moment within a list. Told as if the checker had refused its type."""


def split(text):
    """The name of a type and its parameters: map(string, list(int))."""
    text = text.strip()
    name, _, rest = text.partition("(")
    parameters, depth, start = [], 0, 0
    inner = rest[:-1]
    for at, character in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parameters.append(inner[start:at])
            start = at + 1
    if inner:
        parameters.append(inner[start:])
    return name.strip(), parameters


def read_type(text):
    name, parameters = split(text)
    if name == "list":
        return cel.Type.List(read_type(parameters[0]))
    if name == "map":
        return cel.Type.Map(read_type(parameters[0]), read_type(parameters[1]))
    return SIMPLE[name]


def micros(text):
    """Microseconds of `-1.5s`; Python keeps no more."""
    sign, seconds, fraction = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?s", text).groups()
    fraction = (fraction or "").ljust(9, "0")
    if not fraction.endswith("000"):
        raise ValueError("more digits than Python keeps")
    number = int(seconds) * 1_000_000 + int(fraction[:6])
    return -number if sign else number


def untag(tagged):
    ((kind, inner),) = tagged.items()
    if kind in ("int", "uint"):
        return int(inner)
    if kind == "double":
        return float(inner)
    if kind in ("string", "bool", "null"):
        return inner
    if kind == "bytes":
        return base64.b64decode(inner)
    if kind == "list":
        return [untag(item) for item in inner]
    if kind == "map":
        return {untag(key): untag(value) for key, value in inner}
    if kind == "timestamp":
        date, fraction = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z", inner).groups()
        whole = datetime.datetime.strptime(date, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
        return whole + datetime.timedelta(microseconds=micros(f"0.{fraction or 0}s"))
    if kind == "duration":
        return datetime.timedelta(microseconds=micros(inner))
    raise ValueError(f"a value of kind {kind}")


def tag(value, of):
    """A value, with its type as the checker names it: LIST<INT>. What the checker calls DYN, the value says."""
    name, parameters = split(of.replace("<", "(").replace(">", ")"))
    actual = value.type().name()
    if name == "DYN" or not parameters:
        name = actual.partition("<")[0]
    parameters = parameters or ["DYN", "DYN"]
    if name == "LIST":
        return {"list": [tag(item, parameters[0]) for item in value.value()]}
    if name == "MAP":
        return {"map": [[tag_plain(key, parameters[0]), tag(inner, parameters[1])] for key, inner in value.value().items()]}
    return tag_plain(value.plain_value(), name)


def tag_plain(value, name):
    """A scalar of which Python has the value only."""
    if name == "DYN":
        name = {bool: "BOOL", int: "INT", str: "STRING"}.get(type(value))
    if name in ("INT", "UINT"):
        return {name.lower(): str(value)}
    if name == "DOUBLE":
        return {"double": repr(value)}
    if name == "STRING":
        return {"string": value}
    if name == "BOOL":
        return {"bool": value}
    if name == "NULL":
        return {"null": None}
    if name == "BYTES":
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    raise NoTag(f"a value of type {name}")


class Evaluator:
    def __init__(self):
        config = "name: tests\nextensions:\n" + "".join(f"- name: {name}\n" for name in EXTENSIONS)
        self.config = cel.NewEnvConfigFromYaml(config)
        self.environments = {}

    def environment(self, types):
        key = json.dumps(types, sort_keys=True)
        if key not in self.environments:
            variables = {name: read_type(of) for name, of in types.items()}
            self.environments[key] = cel.NewEnv(config=self.config, variables=variables)
        return self.environments[key]

    def evaluate(self, asked):
        phase = "request"
        try:
            environment = self.environment(asked["types"])
            variables = {name: untag(value) for name, value in asked["vars"].items()}
            phase = "check"
            program = environment.compile(asked["expr"])
            of = program.return_type().name()
            # Python keeps no nanoseconds, their text does.
            is_time = of in ("TIMESTAMP", "DURATION")
            if is_time:
                program = environment.compile(f"string({asked['expr']})")
            phase = "evaluation"
            value = program.eval(data=variables)
            if value.type().name() == "ERROR":
                return {"error": str(value.plain_value()), "phase": phase}
            phase = "request"
            return {"value": {of.lower(): value.plain_value()} if is_time else tag(value, of)}
        except NoTag as error:
            return {"error": str(error), "phase": "check"}
        except Exception as error:  # Whatever the package raises is its answer.
            return {"error": f"{type(error).__name__}: {error}", "phase": phase}


def main():
    evaluator = Evaluator()
    for line in sys.stdin:
        answer = evaluator.evaluate(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
