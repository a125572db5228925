"""Calls and services of gRPC whose messages are bytes.

    raw.py call HOST:PORT /pkg.Service/Method HEX    prints the reply in hexadecimal, or the name of the status
    raw.py serve LOG                                 answers every unary call with its own message; a line of LOG for each
"""

import concurrent.futures
import sys
import threading

import grpc


def same(message):
    return message


def call(address, method, message):
    with grpc.insecure_channel(address) as channel:
        try:
            ask = channel.unary_unary(method, request_serializer=same, response_deserializer=same)
            print(ask(bytes.fromhex(message), timeout=10).hex())
        except grpc.RpcError as error:
            print(error.code().name, error.details())


class Echo(grpc.GenericRpcHandler):
    def __init__(self, log):
        self.log, self.lock = log, threading.Lock()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer, request_deserializer=same, response_serializer=same)

    def answer(self, message, _):
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
