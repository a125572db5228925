"""The service lab.v1.Echo (see lab/v1/echo.proto) with reflection and health checks. Logs JSON lines to standard output.

    echo_server.py [--listen 127.0.0.1:0] [--cert PEM --key PEM]

Events: listening (address), start, cancelled, done and failed (id, method).
"""

import argparse
import asyncio
import json
import pathlib
import signal

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lab.v1 import echo_pb2, echo_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
STATES_KEPT = 10_000


def log(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def matching_metadata(context, prefix):
    return tuple((name, value) for name, value in context.invocation_metadata() if name.startswith(prefix))


class Echo(echo_pb2_grpc.EchoServicer):
    def __init__(self):
        self.states = {}

    def record(self, method, plan, state):
        if plan.id:
            self.states[plan.id] = state
            while len(self.states) > STATES_KEPT:
                del self.states[next(iter(self.states))]
            log({"running": "start"}.get(state, state), id=plan.id, method=method)

    async def initial(self, context, gzip=False):
        if gzip:
            context.set_compression(grpc.Compression.Gzip)
        context.set_trailing_metadata(matching_metadata(context, "x-echo-trailing-"))
        await context.send_initial_metadata(matching_metadata(context, "x-echo-initial-"))

    async def fail(self, context, plan):
        trailing = matching_metadata(context, "x-echo-trailing-")
        if plan.details:
            status = status_pb2.Status(code=plan.code, message=plan.message, details=plan.details)
            trailing += (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(CODES[plan.code], plan.message, trailing)

    def reply(self, context, request, **fields):
        reply = echo_pb2.Reply(**fields)
        if request.HasField("body"):
            reply.body.CopyFrom(request.body)
        if request.plan.state_of:
            reply.state = self.states.get(request.plan.state_of, "unknown")
        if request.plan.want_seen:
            for name, value in context.invocation_metadata():
                reply.seen.metadata[name].values.append(value if isinstance(value, bytes) else value.encode())
            if context.time_remaining() is not None:
                reply.seen.remaining_s = context.time_remaining()
            reply.seen.peer = context.peer()
        return reply

    async def settle(self, context, plan):
        """The request iterator ends at a half-close, but sometimes also just before the handler is cancelled."""
        if plan.id:
            await asyncio.sleep(0.1)
            if context.cancelled():
                raise asyncio.CancelledError

    def watch(self, method, plan):
        return Watch(self, method, plan)

    async def Unary(self, request, context):
        plan = request.plan
        with self.watch("Unary", plan):
            if plan.code:
                # No initial metadata, so that the error is sent as trailers-only.
                await asyncio.sleep(plan.wait_ms / 1000)
                await self.fail(context, plan)
            await self.initial(context, plan.gzip)
            await asyncio.sleep(plan.wait_ms / 1000)
            return self.reply(context, request)

    async def ServerStream(self, request, context):
        plan = request.plan
        with self.watch("ServerStream", plan):
            await self.initial(context, plan.gzip)
            for number in range(plan.count):
                if plan.code and number == plan.fail_after:
                    await self.fail(context, plan)
                await asyncio.sleep(plan.wait_ms / 1000)
                yield self.reply(context, request, number=number)
            if plan.code:
                await self.fail(context, plan)

    async def ClientStream(self, requests, context):
        last, count, watch = echo_pb2.Request(), 0, None
        plan = last.plan
        try:
            async for request in requests:
                if count == 0:
                    plan = echo_pb2.Plan.FromString(request.plan.SerializeToString())
                    watch = self.watch("ClientStream", plan).__enter__()
                    await self.initial(context, plan.gzip)
                last, count = request, count + 1
                if plan.code and count == plan.fail_after:
                    await self.fail(context, plan)
            await self.settle(context, plan)
            await asyncio.sleep(plan.wait_ms / 1000)
            if plan.code:
                await self.fail(context, plan)
            reply = self.reply(context, last, number=count)
        except BaseException as problem:
            if watch:
                watch.__exit__(type(problem), problem, None)
            raise
        if watch:
            watch.__exit__(None, None, None)
        return reply

    async def Bidi(self, requests, context):
        await self.initial(context)
        count, watch, plan = 0, None, echo_pb2.Plan()
        try:
            async for request in requests:
                if count == 0:
                    plan = echo_pb2.Plan.FromString(request.plan.SerializeToString())
                    watch = self.watch("Bidi", plan).__enter__()
                await asyncio.sleep(plan.wait_ms / 1000)
                if plan.code and count == plan.fail_after:
                    await self.fail(context, plan)
                yield self.reply(context, request, number=count)
                count += 1
            await self.settle(context, plan)
            yield echo_pb2.Reply(number=count, closing=True)
            if plan.code:
                await self.fail(context, plan)
        except BaseException as problem:
            if watch:
                watch.__exit__(type(problem), problem, None)
            raise
        if watch:
            watch.__exit__(None, None, None)


class Watch:
    """Records how a call ends."""

    def __init__(self, echo, method, plan):
        self.echo, self.method, self.plan = echo, method, plan

    def __enter__(self):
        self.echo.record(self.method, self.plan, "running")
        return self

    def __exit__(self, kind, problem, _):
        cancelled = kind and issubclass(kind, (asyncio.CancelledError, GeneratorExit))
        self.echo.record(self.method, self.plan, "cancelled" if cancelled else "failed" if kind else "done")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--cert", type=pathlib.Path)
    parser.add_argument("--key", type=pathlib.Path)
    arguments = parser.parse_args()
    limits = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=limits)
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    name = echo_pb2.DESCRIPTOR.services_by_name["Echo"].full_name
    await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([name, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    if arguments.cert:
        pair = [(arguments.key.read_bytes(), arguments.cert.read_bytes())]
        port = server.add_secure_port(arguments.listen, grpc.ssl_server_credentials(pair))
    else:
        port = server.add_insecure_port(arguments.listen)
    await server.start()
    log("listening", address=f"127.0.0.1:{port}")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(0.2)


if __name__ == "__main__":
    asyncio.run(main())
