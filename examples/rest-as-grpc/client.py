"""Queries a rate over gRPC: client.py HOST:PORT BASE CURRENCY. Prints the reply, or the status code and message."""

import sys

import grpc

sys.path.insert(0, "config/contracts")
protos, services = grpc.protos_and_services("rates.proto")
address, base, currency = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    try:
        rate = services.RatesStub(channel).GetRate(protos.GetRateRequest(base=base, currency=currency), timeout=5)
        print(rate.pair, rate.rate, rate.valid_seconds, rate.source.bank, ",".join(rate.source.desks))
    except grpc.RpcError as error:
        print(error.code().name, error.details())
