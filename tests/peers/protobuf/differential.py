#!/usr/bin/env python3
"""Compares Crossdock's codecs with Python's protobuf on random messages of random contracts.

    differential.py TESTEE [--messages N] [--seed S]

TESTEE is `conformance-testee`, which is run in both modes (direct, and through the canonical value). For each message, these must be
equal to the original when read by Python: protobuf → testee → JSON, JSON of Python → testee → protobuf, and protobuf → testee → protobuf.
Then the JSON and the bytes are damaged: both sides must accept or both reject the result. Each finding is printed with the seed that
reproduces it; the exit code is 1 if there is one.
"""

import argparse
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, unknown_fields
from grpc_tools import protoc

SCALARS = ["double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
           "sfixed64", "bool", "string", "bytes"]
KEYS = [kind for kind in SCALARS if kind not in ("double", "float", "bytes")]
KNOWN = ["Timestamp", "Duration", "Struct", "Value", "ListValue", "FieldMask", "Any", "Int64Value", "StringValue", "BoolValue",
         "DoubleValue", "BytesValue"]
IMPORTS = ["any", "duration", "field_mask", "struct", "timestamp", "wrappers"]
EDGES = {"int32": [0, 1, -1, 2**31 - 1, -2**31], "int64": [0, -1, 2**63 - 1, -2**63, 2**53 + 1],
         "uint32": [0, 1, 2**32 - 1], "uint64": [0, 1, 2**64 - 1, 2**53 + 1]}
EDGES |= {"sint32": EDGES["int32"], "sfixed32": EDGES["int32"], "sint64": EDGES["int64"], "sfixed64": EDGES["int64"],
          "fixed32": EDGES["uint32"], "fixed64": EDGES["uint64"]}
TEXTS = ["", "a", "085", "é\u0001\"\\/", "\U0001f600", "x" * 200, "null", "1e3"]
DOUBLES = [0.0, -0.0, 1.5, 0.1, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"), 123456789.123]


def contract(rng, syntax):
    """The text of a random .proto file with messages M0 to M3."""
    head = {"proto2": 'syntax = "proto2";', "proto3": 'syntax = "proto3";', "2023": 'edition = "2023";'}[syntax]
    lines = [head, "package r;"] + [f'import "google/protobuf/{name}.proto";' for name in IMPORTS]
    first = 0 if syntax != "proto2" or rng.random() < 0.5 else -1
    lines.append(f"enum E {{ option allow_alias = true; ZERO = {first}; ONE = 1; UNO = 1; MINUS = -5; BIG = 2147483647; }}")
    for index in range(4):
        number, fields = 0, []
        for position in range(rng.randint(1, 12)):
            number += rng.choice([1, 1, 1, 7, 600])
            name = f"f{position}_{rng.choice(['a', 'long_name', 'x1'])}"
            kind = rng.choice([*SCALARS, *SCALARS, "E", *(f"M{n}" for n in range(4)),
                               *(f"google.protobuf.{known}" for known in KNOWN)])
            shape = rng.random()
            label = "optional " if syntax == "proto2" or (syntax == "proto3" and shape < 0.2 and kind[0] not in "Mg") else ""
            if shape > 0.8:
                # An enum in a map must begin with 0.
                value = kind if kind != "google.protobuf.Any" and (kind, first) != ("E", -1) else "string"
                fields.append(f"map<{rng.choice(KEYS)}, {value}> {name} = {number};")
            elif shape > 0.55:
                packable = kind in SCALARS[:13] or kind == "E"
                option = f" [packed = {rng.choice(['true', 'false'])}]" if packable and syntax != "2023" and rng.random() < 0.5 else ""
                fields.append(f"repeated {kind} {name} = {number}{option};")
            elif shape > 0.45:
                number += 1
                fields.append(f"oneof {name}_one {{ {kind} {name} = {number - 1}; string {name}_text = {number}; }}")
            elif syntax == "proto2" and shape > 0.4:
                fields.append(f"optional group G{position} = {number} {{ optional int32 inner = 1; }}")
            elif syntax == "2023" and kind.startswith("M") and shape > 0.3:
                fields.append(f"{kind} {name} = {number} [features.message_encoding = DELIMITED];")
            else:
                fields.append(f"{label}{kind} {name} = {number};")
        lines.append(f"message M{index} {{\n  " + "\n  ".join(fields) + "\n}")
    return "\n".join(lines)


def value_of(rng, field, pool, depth):
    kind = field.type
    names = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 13: "uint32", 15: "sfixed32",
             16: "sfixed64", 17: "sint32", 18: "sint64"}
    if kind == field.TYPE_DOUBLE:
        return rng.choice(DOUBLES)
    if kind == field.TYPE_FLOAT:
        return struct.unpack("f", struct.pack("f", rng.choice([0.0, 0.1, -1.5, 3e38, float("inf"), float("nan")])))[0]
    if kind in names:
        return rng.choice(EDGES[names[kind]])
    if kind == field.TYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.TYPE_STRING:
        return rng.choice(TEXTS)
    if kind == field.TYPE_BYTES:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(9)))
    if kind == field.TYPE_ENUM:
        return rng.choice([1, -5, 2147483647])
    inner = message_factory.GetMessageClass(field.message_type)()
    fill(rng, inner, pool, depth - 1)
    return inner


def fill(rng, message, pool, depth):
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        message.seconds, message.nanos = rng.choice([-62135596800, -1, 0, 253402300799, 1795518641]), rng.choice([0, 1, 500000000, 999999999])
    elif name == "google.protobuf.Duration":
        sign = rng.choice([-1, 1])
        message.seconds, message.nanos = sign * rng.choice([0, 1, 315576000000 - 1]), sign * rng.choice([0, 1, 1000, 999999999])
    elif name == "google.protobuf.FieldMask":
        message.paths.extend(rng.choice([[], ["a"], ["a_b.c", "d"]]))
    elif name in ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"):
        plain = {"a": [1.5, None, True, {"b": "c"}], "é": "x"}
        json_format.ParseDict({"Struct": plain, "Value": rng.choice([None, 1.5, "x", plain]), "ListValue": [plain, "y"]}[name[16:]], message)
    elif name == "google.protobuf.Any":
        inner = message_factory.GetMessageClass(pool.FindMessageTypeByName(rng.choice(["r.M0", "r.M1", "google.protobuf.Duration"])))()
        fill(rng, inner, pool, min(depth, 1))
        message.Pack(inner)
    else:
        for field in message.DESCRIPTOR.fields:
            if rng.random() < 0.5 or (depth <= 0 and field.message_type is not None):
                continue
            is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
            count = rng.choice([1, 1, 2, 3])
            if is_map:
                key, value = field.message_type.fields
                for _ in range(count):
                    made = value_of(rng, value, pool, depth)
                    target = getattr(message, field.name)
                    if value.message_type is not None:
                        target[value_of(rng, key, pool, depth)].CopyFrom(made)
                    else:
                        target[value_of(rng, key, pool, depth)] = made
            elif field.is_repeated:
                for _ in range(count):
                    made = value_of(rng, field, pool, depth)
                    getattr(message, field.name).append(made)
            elif field.message_type is not None:
                getattr(message, field.name).CopyFrom(value_of(rng, field, pool, depth))
            else:
                setattr(message, field.name, value_of(rng, field, pool, depth))


class Testee:
    """A testee process in one mode, driven with the protocol of protobuf's conformance runner."""

    def __init__(self, binary, descriptors, mode):
        self.mode = mode
        self.child = subprocess.Popen([binary, descriptors, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def transcode(self, name, to_json, payload):
        kind = 1 if isinstance(payload, bytes) else 2
        data = payload if kind == 1 else payload.encode("utf-8", "surrogatepass")
        request = field_bytes(kind, data) + bytes([3 << 3, 2 if to_json else 1]) + field_bytes(4, name.encode())
        self.child.stdin.write(struct.pack("<I", len(request)) + request)
        self.child.stdin.flush()
        head = self.child.stdout.read(4)
        if len(head) < 4:
            raise SystemExit(f"the testee exited ({self.mode})")
        answer = self.child.stdout.read(struct.unpack("<I", head)[0])
        number, at, size, shift = answer[0] >> 3, 1, 0, 0
        while True:
            size |= (answer[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if answer[at - 1] < 128:
                break
        content = answer[at:at + size]
        return content.decode() if number == 4 else content if number == 3 else None

    def stop(self):
        self.child.stdin.close()
        self.child.wait(10)


def field_bytes(number, data):
    size, out = len(data), bytearray([number << 3 | 2])
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out) + bytes([size]) + data


def same(left, right, pool):
    """Whether two messages are equal; NaN equals NaN, and the order of map entries and of fields in an Any is ignored."""
    if left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True):
        return True
    try:
        texts = [json_format.MessageToJson(one, descriptor_pool=pool, sort_keys=True) for one in (left, right)]
    except Exception:  # not every message can be written as JSON
        return False
    return texts[0] == texts[1]


def damaged(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if data:
            at = rng.randrange(len(data))
            if rng.random() < 0.6:
                data[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del data[at:at + rng.randint(1, 4)]
            else:
                data[at:at] = data[at:at + rng.randint(1, 4)]
    return bytes(data)


# What only Python accepts beyond ProtoJSON: `_` between digits, and other characters in base64.
LENIENT = re.compile(r'"-?[0-9]+_[0-9_]*"|"[A-Za-z0-9+/_=-]*[^"A-Za-z0-9+/_=\\-][^"]*"|"[A-Za-z0-9+/_-]+=+[^"]*"')


def is_known_difference(text, ours):
    """Whether Crossdock rejects the JSON on purpose while Python accepts it, also where Python's JSON is not RFC 8259."""
    # Python treats every falsy value, such as an empty string, as an empty message.
    if ours is None and (LENIENT.search(text) or text.strip() in ('""', "[]", "0", "false", "null")):
        return True

    def reject_duplicates(pairs):
        if len({key for key, _ in pairs}) < len(pairs):
            raise KeyError("duplicate")
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=reject_duplicates, parse_constant=lambda word: (_ for _ in ()).throw(KeyError(word)))
    except KeyError:
        return ours is None
    except ValueError:
        return False
    return False


def has_dropped_unknowns(message):
    """Whether Python keeps unknown fields that Crossdock drops: Python keeps a map entry with unknown fields as a whole, while Crossdock
    reads its key and value; and Crossdock drops unknown fields of messages with a special JSON form."""
    if message.DESCRIPTOR.full_name.startswith("google.protobuf.") and len(unknown_fields.UnknownFieldSet(message)):
        return True
    maps = {field.number for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.GetOptions().map_entry}
    if any(field.field_number in maps for field in unknown_fields.UnknownFieldSet(message)):
        return True
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = list(value.values()) if field.message_type.fields[1].message_type is not None else []
        else:
            inner = list(value) if field.is_repeated else [value]
        if any(has_dropped_unknowns(one) for one in inner):
            return True
    return False


def check_contract(seed, binary, folder, per_contract, findings):
    rng = random.Random(seed)
    syntax = rng.choice(["proto2", "proto3", "2023"])
    text = contract(rng, syntax)
    (folder / "r.proto").write_text(text)
    include = str(pathlib.Path(protoc.__file__).parent / "_proto")
    if protoc.main(["protoc", f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={folder}/r.binpb", "r.proto"]):
        raise SystemExit(f"seed {seed}: protoc rejects\n{text}")
    files = descriptor_pb2.FileDescriptorSet.FromString((folder / "r.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    testees = [Testee(binary, folder / "r.binpb", mode) for mode in ("direct", "value")]
    done = 0
    for step in range(per_contract):
        descriptor = pool.FindMessageTypeByName(f"r.M{rng.randrange(4)}")
        make = message_factory.GetMessageClass(descriptor)
        message = make()
        fill(rng, message, pool, 3)
        wire = message.SerializeToString()
        written = json_format.MessageToJson(message, descriptor_pool=pool, ensure_ascii=rng.random() < 0.5)
        name, done = descriptor.full_name, done + 1
        read = lambda text: json_format.Parse(text, make(), descriptor_pool=pool)

        def found(what, detail=""):
            findings.append(f"seed {seed} step {step} {syntax} {name}: {what} {detail}")
            print(" ".join(findings[-1].split())[:2000], flush=True)

        broken_json = damaged(rng, written.encode()).decode("utf-8", "replace")
        broken_wire = damaged(rng, wire)
        for testee in testees:
            ours = testee.transcode(name, True, wire)
            if ours is None or not same(read(ours), message, pool):
                found(f"{testee.mode}: protobuf to JSON", f"{written} -> {ours}")
            for source, what in ((written, "JSON"), (wire, "protobuf")):
                back = testee.transcode(name, False, source)
                if back is None or not same(make.FromString(back), message, pool):
                    found(f"{testee.mode}: {what} to protobuf", f"{written} -> {back and back.hex()}")
            ours = testee.transcode(name, False, broken_json)
            try:
                theirs = json_format.Parse(broken_json, make(), descriptor_pool=pool)
            except Exception:  # Python rejects it with various exceptions
                theirs = None
            if (ours is None) != (theirs is None) and not is_known_difference(broken_json, ours):
                found(f"{testee.mode}: only {'Python' if ours is None else 'Crossdock'} accepts the JSON", broken_json)
            elif ours is not None and theirs is not None and not same(make.FromString(ours), theirs, pool):
                found(f"{testee.mode}: JSON is read differently", broken_json)
            ours = testee.transcode(name, False, broken_wire)
            error_text = ""
            try:
                theirs = make.FromString(broken_wire)
            except Exception as error:  # Python rejects it with various exceptions
                theirs, error_text = None, str(error)
            if (ours is None) != (theirs is None):
                # For proto2, Python accepts strings of any bytes; otherwise, it also validates strings that a later value replaces.
                if not (ours is None and syntax == "proto2") and not (ours is not None and "UTF-8" in error_text):
                    found(f"{testee.mode}: only {'Python' if ours is None else 'Crossdock'} accepts the bytes", broken_wire.hex())
            elif ours is not None and not has_dropped_unknowns(theirs) and not same(make.FromString(ours), theirs, pool):
                found(f"{testee.mode}: bytes are read differently", broken_wire.hex())
    for testee in testees:
        testee.stop()
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("testee")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    findings, done, seed, per_contract = [], 0, arguments.seed, 40
    with tempfile.TemporaryDirectory() as folder:
        while done < arguments.messages:
            done += check_contract(seed, arguments.testee, pathlib.Path(folder), min(per_contract, arguments.messages - done), findings)
            seed += 1
    print(f"{done} messages, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
