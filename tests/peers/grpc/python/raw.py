"""A gRPC client and service with raw bytes as messages.

    raw.py call HOST:PORT /pkg.Service/Method HEX    prints the reply in hexadecimal, or the status name and message
    raw.py serve LOG                                 echoes every unary call; appends the request to LOG in hexadecimal, one line per call
"""

import concurrent.futures
import sys
import threading

import grpc


def identity(message):
    return message


def call(address, method, message):
    with grpc.insecure_channel(address) as channel:
        try:
            method_call = channel.unary_unary(method, request_serializer=identity, response_deserializer=identity)
            print(method_call(bytes.fromhex(message), timeout=10).hex())
        except grpc.RpcError as error:
            print(error.code().name, error.details())


class Echo(grpc.GenericRpcHandler):
    def __init__(self, log):
        self.log, self.lock = log, threading.Lock()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.echo, request_deserializer=identity, response_serializer=identity)

    def echo(self, message, _):
        with self.lock, open(self.log, "a") as log:
            log.write(message.hex() + "\n")
        return message


def serve(log):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Echo(log)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"serves at 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    {"call": call, "serve": serve}[sys.argv[1]](*sys.argv[2:])
