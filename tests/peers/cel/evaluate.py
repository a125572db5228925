"""Evaluates CEL expressions with cel-cpp, through its Python package (cel-expr-python).

Reads and writes the same JSON lines as cmd/evaluate. Returns only scalars, lists and maps.
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


class Untaggable(Exception):
    """A value that the package does not return exactly, such as a timestamp in a list. Reported like a rejection by the type checker."""


def split(text):
    """Splits a type such as map(string, list(int)) into name and parameters."""
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
    """The microseconds in a text such as `-1.5s`."""
    sign, seconds, fraction = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?s", text).groups()
    fraction = (fraction or "").ljust(9, "0")
    if not fraction.endswith("000"):
        raise ValueError("Python has only microsecond precision")
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
    """Tags a value, given the type of the checker such as LIST<INT>; for DYN, the type of the value is used."""
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
    """Tags a plain Python scalar."""
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
    raise Untaggable(f"a value of type {name}")


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

    def evaluate(self, request):
        phase = "request"
        try:
            environment = self.environment(request["types"])
            variables = {name: untag(value) for name, value in request["vars"].items()}
            phase = "check"
            program = environment.compile(request["expr"])
            of = program.return_type().name()
            # Evaluated as text, as Python has no nanoseconds.
            is_time = of in ("TIMESTAMP", "DURATION")
            if is_time:
                program = environment.compile(f"string({request['expr']})")
            phase = "evaluation"
            value = program.eval(data=variables)
            if value.type().name() == "ERROR":
                return {"error": str(value.plain_value()), "phase": phase}
            phase = "request"
            return {"value": {of.lower(): value.plain_value()} if is_time else tag(value, of)}
        except Untaggable as error:
            return {"error": str(error), "phase": "check"}
        except Exception as error:  # Any exception of the package is an answer.
            return {"error": f"{type(error).__name__}: {error}", "phase": phase}


def main():
    evaluator = Evaluator()
    for line in sys.stdin:
        answer = evaluator.evaluate(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
