"""A gRPC service with streaming requests and responses."""

import sys
import time
from concurrent import futures

import grpc

sys.path.insert(0, "config/contracts")
protos, services = grpc.protos_and_services("prices.proto")


class Prices(services.PricesServicer):
    def Watch(self, request, context):
        if request.symbol == "none":
            context.abort(grpc.StatusCode.NOT_FOUND, "symbol not found")
        count = 0
        while context.is_active() and (not request.changes or count < request.changes):
            count += 1
            yield protos.Price(symbol=request.symbol, ticks=count * (-1) ** count)
            if request.symbol == "halted" and count == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "trading was halted")
            time.sleep(request.interval.seconds + request.interval.nanos / 1e9)

    def Sum(self, requests, context):
        return protos.Amount(ticks=sum(amount.ticks for amount in requests))


server = grpc.server(futures.ThreadPoolExecutor(4))
services.add_PricesServicer_to_server(Prices(), server)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print(f"listening on 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
