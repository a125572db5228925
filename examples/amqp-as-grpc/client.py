"""Reserves pieces over gRPC: client.py HOST:PORT SKU PIECES. Prints the reply, or the status code and message."""

import sys

import grpc

sys.path.insert(0, "config/contracts")
protos, services = grpc.protos_and_services("stock.proto")
address, sku, pieces = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    try:
        reservation = services.StockStub(channel).Reserve(protos.ReserveRequest(sku=sku, pieces=int(pieces)), timeout=5)
        print(reservation.sku, reservation.pieces, reservation.left)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
