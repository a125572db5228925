"""A client of the API of a cluster, with generated code.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I schemas --python_out=. --grpc_python_out=. gateway.proto
    python client.py 127.0.0.1:7200 TOKEN

The token needs the scopes locks, sequences, enqueue, consume and operate.
"""

import queue
import sys

import grpc
import gateway_pb2 as api
import gateway_pb2_grpc as stubs

address, token = sys.argv[1:]
channel = grpc.insecure_channel(address)
metadata = [("authorization", f"Bearer {token}")]

# A lock for as long as the call lasts. The fencing token goes to every service that is called under it.
locks = stubs.LocksStub(channel)
hold = locks.Hold(api.HoldRequest(claims=[api.Claim(lock="stock/7")], wait_ms=5_000), metadata=metadata)
for event in hold:
    match event.WhichOneof("event"):
        case "granted":
            print(f"held stock/7 with token {event.granted}")
            # What an operator may do.
            locks.Revoke(api.RevokeRequest(lock="stock/7", reason="maintenance"), metadata=metadata)
        case "revoked":
            print(f"asked to release: {event.revoked}")
            locks.Break(api.BreakRequest(lock="stock/7", reason="too slow"), metadata=metadata)
        case "lost":
            print(f"lost: {event.lost}")

taken = stubs.SequencesStub(channel).Take(api.TakeRequest(sequence="invoices", count=10), metadata=metadata)
print(f"numbers from {taken.first}")

# A queue: messages of one key are delivered one after another, each once the one before is settled.
queues = stubs.QueuesStub(channel)
for number in (1, 2):
    message = api.EnqueueRequest(queue="python", key="k", body=f"letter {number}".encode(), id=f"letter {number}")
    queues.Enqueue(message, metadata=metadata)
requests = queue.Queue()
requests.put(api.ConsumeRequest(open=api.OpenConsumer(queue="python")))
deliveries = queues.Consume(iter(requests.get, None), metadata=metadata)
for delivery in deliveries:
    print(delivery.body.decode())
    requests.put(api.ConsumeRequest(settle=api.Settlement(delivery=delivery.delivery, done=True)))
    if delivery.body == b"letter 2":
        requests.put(None)
        break
