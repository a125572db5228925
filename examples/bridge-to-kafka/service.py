"""A gRPC service for measurements: service.py PORT."""

import sys
from concurrent import futures

import grpc

sys.path.insert(0, "config/contracts")
protos, services = grpc.protos_and_services("sensors.proto")


class Sensors(services.SensorsServicer):
    def __init__(self):
        self.values = {}

    def Record(self, request, context):
        if not request.sensor:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "sensor must not be empty")
        values = self.values.setdefault(request.sensor, [])
        values.append(request.value)
        return protos.Recorded(count=len(values))

    def List(self, request, context):
        return protos.ListReply(values=self.values.get(request.sensor, []))


server = grpc.server(futures.ThreadPoolExecutor(4))
services.add_SensorsServicer_to_server(Sensors(), server)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print(f"listening on 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
