"""Checks lab.v1.Echo at an address, directly or through a gateway; prints "ok NAME" or "FAIL NAME reason" for each check.

    echo_client.py HOST:PORT [--only A,B] [--skip A,B] [--ca PEM] [--server-name NAME] [--list] [--header NAME=VALUE]...

The last line is "N passed, N failed"; the exit code is 1 if a check failed.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import sys
import time
import traceback
import uuid

import grpc
from google.protobuf import any_pb2, wrappers_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lab.v1 import echo_pb2 as pb
from lab.v1 import echo_pb2_grpc

CHECKS = []
TIMEOUT_S = 10  # of a call that must succeed


def check(function):
    CHECKS.append(function)
    return function


def everything(depth=1):
    made = pb.Everything(
        double_value=-1.5e300, float_value=0.15625, int32_value=-(2**31), int64_value=-(2**63), uint32_value=2**32 - 1,
        uint64_value=2**64 - 1, sint32_value=-(2**31), sint64_value=-(2**63), fixed32_value=2**32 - 1, fixed64_value=2**64 - 1,
        sfixed32_value=-(2**31), sfixed64_value=2**63 - 1, bool_value=True, string_value='Grüße "\\ \n\u2028 𝄞', bytes_value=bytes(range(256)),
        color=pb.COLOR_BLUE, texts={"": "empty key", "ключ": "значение"}, colors={True: pb.COLOR_RED, False: pb.COLOR_NEGATIVE},
        packed=[0, -1, 2**31 - 1], words=["", "a", "ß"], unpacked=[0.0, -0.0, 1e-300], present=0, present_text="",
        renamed="renamed",
    )
    made.bool_wrapper.value = False
    made.int32_wrapper.value = -1
    made.int64_wrapper.value = 2**53 + 1
    made.uint32_wrapper.value = 0
    made.uint64_wrapper.value = 2**64 - 1
    made.float_wrapper.value = float("inf")
    made.double_wrapper.value = 0.1
    made.string_wrapper.value = ""
    made.bytes_wrapper.value = b"\xff\x00"
    made.timestamp.FromJsonString("1969-12-31T23:59:59.999999999Z")
    made.duration.FromJsonString("-3.000000001s")
    made.struct.update({"text": "t", "number": 1.5, "none": None, "yes": True, "list": [1, "2", {"three": 3}]})
    made.value.string_value = "v"
    made.list.extend([1, None, "x"])
    made.any.Pack(wrappers_pb2.StringValue(value="packed"))
    made.mask.paths.extend(["words", "any.type_url"])
    made.wrapped_words.add(value="w")
    if depth:
        made.choice_message.CopyFrom(everything(depth - 1))
        made.children.add(choice_number=0)
        made.children.add(choice_text="")
        made.children.add().choice_nothing.SetInParent()
        made.messages[-(2**63)].CopyFrom(everything(depth - 1))
    return made


def same(found, wanted, what="value"):
    if found != wanted:
        found, wanted = repr(found), repr(wanted)
        raise AssertionError(f"{what}: {found[:300]} instead of {wanted[:300]}")


def values(metadata, name):
    return [value for key, value in metadata or () if key == name]


class Lab:
    def __init__(self, arguments):
        self.arguments = arguments
        self.headers = tuple(tuple(header.split("=", 1)) for header in arguments.header)
        self.channel = self.open(arguments.target)
        self.echo = echo_pb2_grpc.EchoStub(self.channel)

    def open(self, target, **options):
        settings = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.enable_retries", 0), *options.items()]
        if self.arguments.ca:
            if self.arguments.server_name:
                settings.append(("grpc.ssl_target_name_override", self.arguments.server_name))
            return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(self.arguments.ca.read_bytes()), settings)
        return grpc.aio.insecure_channel(target, settings)

    def with_(self, *pairs):
        return (*self.headers, *pairs)

    async def unary(self, request, timeout=TIMEOUT_S, metadata=(), **options):
        return await self.echo.Unary(request, timeout=timeout, metadata=self.with_(*metadata), **options)

    async def state(self, id, wanted):
        """Waits until the server reports the state of a call."""
        deadline = time.monotonic() + 5
        while True:
            state = (await self.unary(pb.Request(plan=pb.Plan(state_of=id)))).state
            if state == wanted:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"the call is {state}, not {wanted}")
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def failing(code):
    """Expects a call in the block to fail with a code; yields a list that receives the error."""
    caught = []
    try:
        yield caught
    except grpc.aio.AioRpcError as error:
        same(error.code(), code, f"status ({error.details()!r})")
        caught.append(error)
    else:
        raise AssertionError(f"no failure instead of {code.name}")


@check
async def unary(lab):
    body = everything()
    same((await lab.unary(pb.Request(body=body))).body, body)


@check
async def unary_empty_message(lab):
    call = lab.echo.Unary(pb.Request(), timeout=TIMEOUT_S, metadata=lab.with_())
    same((await call).ByteSize(), 0, "bytes")
    same(await call.code(), grpc.StatusCode.OK)


@check
async def unknown_fields(lab):
    raw = b"\x12\x07" + b"\x82\xf1\x04\x03" + b"abc"  # body { 10000: "abc" }
    method = lab.channel.unary_unary("/lab.v1.Echo/Unary")
    same(await method(raw, timeout=TIMEOUT_S, metadata=lab.with_()), b"\x0a" + raw[1:])


@check
async def server_stream(lab):
    request = pb.Request(plan=pb.Plan(count=25), body=everything(0))
    replies = [reply async for reply in lab.echo.ServerStream(request, timeout=TIMEOUT_S, metadata=lab.with_())]
    same([reply.number for reply in replies], list(range(25)), "numbers")
    assert all(reply.body == request.body for reply in replies), "a body differs"


@check
async def server_stream_without_messages(lab):
    call = lab.echo.ServerStream(pb.Request(), timeout=TIMEOUT_S, metadata=lab.with_(("x-echo-trailing-a", "t")))
    same([reply async for reply in call], [])
    same(await call.code(), grpc.StatusCode.OK)
    same(values(await call.trailing_metadata(), "x-echo-trailing-a"), ["t"])


@check
async def server_stream_not_buffered(lab):
    start, times = time.monotonic(), []
    async for _ in lab.echo.ServerStream(pb.Request(plan=pb.Plan(count=3, wait_ms=300)), timeout=TIMEOUT_S, metadata=lab.with_()):
        times.append(time.monotonic() - start)
    same(len(times), 3, "replies")
    assert times[0] < 0.55 and times[2] - times[0] > 0.45, f"replies at {times}"


@check
async def server_stream_fails_midway(lab):
    request = pb.Request(plan=pb.Plan(count=9, code=10, message="midway", fail_after=4))
    numbers = []
    async with failing(grpc.StatusCode.ABORTED) as caught:
        async for reply in lab.echo.ServerStream(request, timeout=TIMEOUT_S, metadata=lab.with_(("x-echo-trailing-a", "t"))):
            numbers.append(reply.number)
    same(numbers, [0, 1, 2, 3], "numbers")
    same(caught[0].details(), "midway")
    same(values(caught[0].trailing_metadata(), "x-echo-trailing-a"), ["t"])


@check
async def client_stream(lab):
    bodies = [pb.Everything(int32_value=number) for number in range(25)]
    reply = await lab.echo.ClientStream(iter([pb.Request(body=body) for body in bodies]), timeout=TIMEOUT_S, metadata=lab.with_())
    same(reply.number, 25, "requests")
    same(reply.body, bodies[-1])


@check
async def client_stream_without_messages(lab):
    same((await lab.echo.ClientStream(iter([]), timeout=TIMEOUT_S, metadata=lab.with_())).ByteSize(), 0, "bytes")


@check
async def client_stream_answered_early(lab):
    call = lab.echo.ClientStream(timeout=TIMEOUT_S, metadata=lab.with_())
    await call.write(pb.Request(plan=pb.Plan(code=9, message="enough", fail_after=1)))
    async with failing(grpc.StatusCode.FAILED_PRECONDITION) as caught:
        await call  # no half-close: the server ends the call
    same(caught[0].details(), "enough")


@check
async def bidi_ping_pong(lab):
    call = lab.echo.Bidi(timeout=TIMEOUT_S, metadata=lab.with_())
    for number in range(10):
        await call.write(pb.Request(body=pb.Everything(int32_value=number)))
        reply = await call.read()
        same((reply.number, reply.body.int32_value, reply.closing), (number, number, False), "reply")
    # The server must not have seen a half-close yet.
    reading = asyncio.ensure_future(call.read())
    done, _ = await asyncio.wait([reading], timeout=0.3)
    assert not done, f"a reply before the half-close: {reading.result()!r}"
    await call.done_writing()
    closing = await reading
    same((closing.number, closing.closing), (10, True), "closing reply")
    assert await call.read() is grpc.aio.EOF, "a reply after the closing one"
    same(await call.code(), grpc.StatusCode.OK)


@check
async def bidi_half_close_first(lab):
    requests = [pb.Request(plan=pb.Plan(wait_ms=20))] + [pb.Request()] * 9
    replies = [reply async for reply in lab.echo.Bidi(iter(requests), timeout=TIMEOUT_S, metadata=lab.with_())]
    same([reply.number for reply in replies], list(range(11)), "numbers")
    same([reply.closing for reply in replies], [False] * 10 + [True], "closing")


@check
async def bidi_without_messages(lab):
    replies = [reply async for reply in lab.echo.Bidi(iter([]), timeout=TIMEOUT_S, metadata=lab.with_())]
    same(replies, [pb.Reply(closing=True)])


@check
async def bidi_initial_metadata_first(lab):
    call = lab.echo.Bidi(timeout=TIMEOUT_S, metadata=lab.with_(("x-echo-initial-a", "first")))
    initial = await asyncio.wait_for(call.initial_metadata(), 5)  # before any message
    same(values(initial, "x-echo-initial-a"), ["first"])
    await call.done_writing()
    same((await call.read()).closing, True, "closing")
    assert await call.read() is grpc.aio.EOF


@check
async def bidi_ended_by_server(lab):
    call = lab.echo.Bidi(timeout=TIMEOUT_S, metadata=lab.with_())
    await call.write(pb.Request(plan=pb.Plan(code=8, message="ended", fail_after=1)))
    same((await call.read()).number, 0, "number")
    async with failing(grpc.StatusCode.RESOURCE_EXHAUSTED) as caught:
        await call.write(pb.Request())
        await call.read()
        raise await call_error(call)
    same(caught[0].details(), "ended")


async def call_error(call):
    return grpc.aio.AioRpcError(await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details())


@check
async def bidi_large_flow(lab):
    """Eight messages of 1 MiB in each direction, written faster than read: flow control in both directions."""
    payload = os.urandom(1 << 20)

    async def requests():
        for _ in range(8):
            yield pb.Request(body=pb.Everything(bytes_value=payload))

    count = 0
    async for reply in lab.echo.Bidi(requests(), timeout=30, metadata=lab.with_()):
        if not reply.closing:
            await asyncio.sleep(0.02)
            assert reply.body.bytes_value == payload, "a body differs"
            count += 1
    same(count, 8, "replies")


@check
async def status_codes(lab):
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            async with failing(code) as caught:
                await lab.unary(pb.Request(plan=pb.Plan(code=code.value[0], message=f"says {code.name}")))
            same(caught[0].details(), f"says {code.name}", "message")


@check
async def status_message_escaped(lab):
    message = "\t100% \r\n Ünï𝄞 %41 : done"
    async with failing(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        await lab.unary(pb.Request(plan=pb.Plan(code=3, message=message)))
    same(caught[0].details(), message, "message")


@check
async def status_details(lab):
    details = []
    for message in (
        error_details_pb2.ErrorInfo(reason="STOCK", domain="lab.v1", metadata={"sku": "ß-1"}),
        error_details_pb2.BadRequest(field_violations=[{"field": "lines[0].qty", "description": "too large"}]),
        error_details_pb2.RetryInfo(),
    ):
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    plan = pb.Plan(code=3, message="bad, says the server", details=details)
    for call in (lambda: lab.unary(pb.Request(plan=plan)), lambda: drain(lab.echo.ServerStream(
            pb.Request(plan=plan), timeout=TIMEOUT_S, metadata=lab.with_()))):
        async with failing(grpc.StatusCode.INVALID_ARGUMENT) as caught:
            await call()
        raw = values(caught[0].trailing_metadata(), "grpc-status-details-bin")
        same(len(raw), 1, "grpc-status-details-bin")
        same(status_pb2.Status.FromString(raw[0]), status_pb2.Status(code=3, message=plan.message, details=details), "google.rpc.Status")


async def drain(call):
    return [reply async for reply in call]


@check
async def unimplemented_method(lab):
    async with failing(grpc.StatusCode.UNIMPLEMENTED):
        await lab.channel.unary_unary("/lab.v1.Echo/Nothing")(b"", timeout=TIMEOUT_S, metadata=lab.with_())


@check
async def metadata_both_ways(lab):
    binary = bytes(range(256))
    sent = (("x-echo-initial-a", "one, two"), ("x-echo-initial-b-bin", binary), ("x-echo-trailing-a", "~ three !"),
            ("x-echo-trailing-b-bin", binary[::-1]), ("x-echo-trailing-c-bin", b""), ("x-plain", "v"))
    call = lab.echo.Unary(pb.Request(plan=pb.Plan(want_seen=True)), timeout=TIMEOUT_S, metadata=lab.with_(*sent))
    seen = (await call).seen.metadata
    for name, value in sent:
        same(list(seen[name].values), [value if isinstance(value, bytes) else value.encode()], f"{name} at the server")
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    for name, value in sent[:2]:
        same(values(initial, name), [value], f"initial {name}")
        same(values(trailing, name), [], f"trailing {name}")
    for name, value in sent[2:5]:
        same(values(trailing, name), [value], f"trailing {name}")
        same(values(initial, name), [], f"initial {name}")


@check
async def metadata_repeated(lab):
    """Several values of one name, in order. They may be joined by commas, also -bin values."""
    sent = (("x-echo-initial-a", "1"), ("x-echo-initial-a", "2"), ("x-echo-trailing-b-bin", b"\x01"), ("x-echo-trailing-b-bin", b"\x02"))
    call = lab.echo.Unary(pb.Request(), timeout=TIMEOUT_S, metadata=lab.with_(*sent))
    await call
    same([part.strip() for value in values(await call.initial_metadata(), "x-echo-initial-a") for part in value.split(",")], ["1", "2"])
    same(values(await call.trailing_metadata(), "x-echo-trailing-b-bin"), [b"\x01", b"\x02"])


@check
async def metadata_streaming(lab):
    sent = (("x-echo-initial-a-bin", b"\x00\xff"), ("x-echo-trailing-a", "t"))
    call = lab.echo.Bidi(iter([pb.Request()]), timeout=TIMEOUT_S, metadata=lab.with_(*sent))
    await drain(call)
    same(values(await call.initial_metadata(), "x-echo-initial-a-bin"), [b"\x00\xff"], "initial")
    same(values(await call.trailing_metadata(), "x-echo-trailing-a"), ["t"], "trailing")


@check
async def deadline_exceeded(lab):
    id, start = str(uuid.uuid4()), time.monotonic()
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        await lab.unary(pb.Request(plan=pb.Plan(id=id, wait_ms=20000)), timeout=0.4)
    assert time.monotonic() - start < 2, "too late"
    await lab.state(id, "cancelled")


@check
async def deadline_exceeded_streaming(lab):
    id, numbers = str(uuid.uuid4()), []
    async with failing(grpc.StatusCode.DEADLINE_EXCEEDED):
        async for reply in lab.echo.ServerStream(pb.Request(plan=pb.Plan(id=id, wait_ms=150, count=1000)), timeout=0.6, metadata=lab.with_()):
            numbers.append(reply.number)
    assert 1 <= len(numbers) <= 4, f"{len(numbers)} replies"
    await lab.state(id, "cancelled")


@check
async def deadline_reaches_server(lab):
    reply = await lab.unary(pb.Request(plan=pb.Plan(want_seen=True)), timeout=7.5)
    assert reply.seen.HasField("remaining_s"), "the server received no deadline"
    assert 5 < reply.seen.remaining_s <= 7.6, f"{reply.seen.remaining_s} s at the server"


@check
async def cancel_unary(lab):
    id = str(uuid.uuid4())
    call = lab.echo.Unary(pb.Request(plan=pb.Plan(id=id, wait_ms=20000)), metadata=lab.with_())
    await lab.state(id, "running")
    call.cancel()
    await lab.state(id, "cancelled")
    same(await call.code(), grpc.StatusCode.CANCELLED)


@check
async def cancel_server_stream(lab):
    id = str(uuid.uuid4())
    call = lab.echo.ServerStream(pb.Request(plan=pb.Plan(id=id, wait_ms=50, count=1000)), metadata=lab.with_())
    same((await call.read()).number, 0, "number")
    call.cancel()
    await lab.state(id, "cancelled")


@check
async def cancel_client_stream(lab):
    id = str(uuid.uuid4())
    call = lab.echo.ClientStream(metadata=lab.with_())
    await call.write(pb.Request(plan=pb.Plan(id=id)))
    await lab.state(id, "running")
    call.cancel()
    await lab.state(id, "cancelled")


@check
async def cancel_bidi(lab):
    id = str(uuid.uuid4())
    call = lab.echo.Bidi(metadata=lab.with_())
    await call.write(pb.Request(plan=pb.Plan(id=id)))
    await call.read()
    call.cancel()
    await lab.state(id, "cancelled")


@check
async def cancel_bidi_after_half_close(lab):
    id = str(uuid.uuid4())
    call = lab.echo.Bidi(metadata=lab.with_())
    await call.write(pb.Request(plan=pb.Plan(id=id, wait_ms=20000)))
    await call.done_writing()
    await lab.state(id, "running")
    call.cancel()
    await lab.state(id, "cancelled")


@check
async def channel_closed_midway(lab):
    """The client's connection breaks with a call in flight: the server must notice."""
    id = str(uuid.uuid4())
    async with Tap(lab) as tap:
        call = tap.echo.Unary(pb.Request(plan=pb.Plan(id=id, wait_ms=20000)), metadata=lab.with_())
        await lab.state(id, "running")
        tap.cut()
        await lab.state(id, "cancelled")
        call.cancel()


@check
async def gzip_both_ways(lab):
    body = pb.Everything(string_value="compressible " * 20000)
    for options in ({}, {"compression": grpc.Compression.Gzip}):
        for gzip in (False, True):
            request = pb.Request(plan=pb.Plan(gzip=gzip), body=body)
            same((await lab.unary(request, **options)).body, body, f"unary {options} {gzip}")
    request = pb.Request(plan=pb.Plan(gzip=True, count=3), body=body)
    replies = await drain(lab.echo.ServerStream(request, timeout=TIMEOUT_S, metadata=lab.with_(), compression=grpc.Compression.Gzip))
    same([reply.body == body for reply in replies], [True] * 3, "bodies")
    replies = await drain(lab.echo.Bidi(iter([request, pb.Request(), request]), timeout=TIMEOUT_S, metadata=lab.with_(), compression=grpc.Compression.Gzip))
    same([reply.body == body for reply in replies], [True, False, True, False], "bodies")


@check
async def gzip_on_the_wire(lab):
    """A reply that the server compressed arrives compressed at the client, and an uncompressed one uncompressed."""
    body = pb.Everything(string_value="compressible " * 20000)
    async with Tap(lab) as tap:
        for gzip in (True, False):
            before = tap.received
            await tap.echo.Unary(pb.Request(plan=pb.Plan(gzip=gzip), body=body), timeout=TIMEOUT_S, metadata=lab.with_(), compression=grpc.Compression.Gzip)
            size = tap.received - before
            assert (size < 30000) == gzip, f"{size} bytes for a reply {'with' if gzip else 'without'} compression"
        assert tap.sent < 60000, f"{tap.sent} bytes for compressed requests"


class Tap:
    """A channel through a TCP relay that counts bytes and can break the connection."""

    def __init__(self, lab):
        self.lab, self.sent, self.received, self.writers = lab, 0, 0, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.channel = self.lab.open(f"127.0.0.1:{port}", **{"grpc.default_authority": self.lab.arguments.target})
        self.echo = echo_pb2_grpc.EchoStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        self.cut()

    def cut(self):
        self.server.close()
        for writer in self.writers:
            if not writer.transport.is_closing():
                writer.transport.abort()

    async def accept(self, reader, writer):
        host, port = self.lab.arguments.target.rsplit(":", 1)
        upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
        self.writers += [writer, upstream_writer]
        await asyncio.gather(self.pump(reader, upstream_writer, "sent"), self.pump(upstream_reader, writer, "received"))

    async def pump(self, reader, writer, counter):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                setattr(self, counter, getattr(self, counter) + len(data))
                writer.write(data)
                await writer.drain()
            writer.close()


@check
async def large_message(lab):
    body = pb.Everything(bytes_value=os.urandom(3 << 20))
    assert (await lab.unary(pb.Request(body=body), timeout=30)).body == body, "the body differs"


@check
async def concurrent_unary(lab):
    async def one(number):
        request = pb.Request(plan=pb.Plan(wait_ms=50), body=pb.Everything(int32_value=number, string_value="x" * (number * 37)))
        return (await lab.unary(request, timeout=30)).body == request.body

    same(sum(await asyncio.gather(*[one(number) for number in range(200)])), 200, "correct replies")


@check
async def concurrent_streams(lab):
    async def one(number):
        requests = [pb.Request(body=pb.Everything(int32_value=number * 1000 + turn)) for turn in range(20)]
        replies = await drain(lab.echo.Bidi(iter(requests), timeout=30, metadata=lab.with_()))
        return [reply.body.int32_value for reply in replies[:-1]] == [request.body.int32_value for request in requests]

    same(sum(await asyncio.gather(*[one(number) for number in range(40)])), 40, "correct replies")


@check
async def health(lab):
    stub = health_pb2_grpc.HealthStub(lab.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="lab.v1.Echo"), timeout=TIMEOUT_S, metadata=lab.with_())
    same(answer.status, health_pb2.HealthCheckResponse.SERVING)


@check
async def reflection(lab):
    stub = reflection_pb2_grpc.ServerReflectionStub(lab.channel)
    requests = [reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="lab.v1.Echo")]
    listed, file = await drain(stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S, metadata=lab.with_()))
    assert "lab.v1.Echo" in [service.name for service in listed.list_services_response.service], f"services {listed}"
    assert file.file_descriptor_response.file_descriptor_proto, "no descriptor"


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", help="HOST:PORT")
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="")
    parser.add_argument("--ca", type=pathlib.Path, help="use TLS and trust this certificate")
    parser.add_argument("--server-name", help="expected name in the server's certificate")
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE sent with each call")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(function.__name__ for function in CHECKS))
        return 0
    only, skip = (set(filter(None, given.split(","))) for given in (arguments.only, arguments.skip))
    if unknown := (only | skip) - {function.__name__ for function in CHECKS}:
        parser.error(f"unknown check: {', '.join(sorted(unknown))}")
    lab = Lab(arguments)
    failed = passed = 0
    for function in CHECKS:
        name = function.__name__
        if (only and name not in only) or name in skip:
            continue
        try:
            await asyncio.wait_for(function(lab), 60)
        except Exception as problem:
            failed += 1
            reason = f"{problem.code().name}: {problem.details()}" if isinstance(problem, grpc.aio.AioRpcError) else f"{type(problem).__name__}: {problem}"
            print(f"FAIL {name} {' '.join(reason.split())[:700]}", flush=True)
            if os.environ.get("TRACE"):
                traceback.print_exc()
        else:
            passed += 1
            print(f"ok {name}", flush=True)
    await lab.channel.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
