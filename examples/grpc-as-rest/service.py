"""A gRPC booking service without any REST support."""

import sys
from concurrent import futures

import grpc

sys.path.insert(0, "config/contracts")
protos, services = grpc.protos_and_services("bookings.proto")
BOOKED, CANCELLED = protos.Booking.State.Value("BOOKED"), protos.Booking.State.Value("CANCELLED")


class Bookings(services.BookingsServicer):
    def __init__(self):
        self.bookings = {}

    def find(self, name, context):
        if name not in self.bookings:
            context.abort(grpc.StatusCode.NOT_FOUND, f"booking not found: {name}")
        return self.bookings[name]

    def GetBooking(self, request, context):
        return self.find(request.name, context)

    def ListBookings(self, request, context):
        found = [b for b in self.bookings.values()
                  if b.name.startswith(request.hotel + "/") and (not request.states or b.state in request.states)]
        return protos.ListBookingsReply(bookings=found[: request.page_size or 100])

    def CreateBooking(self, request, context):
        if request.booking.nights < 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nights must be at least 1")
        booking = protos.Booking()
        booking.CopyFrom(request.booking)
        booking.name = f"{request.hotel}/bookings/{len(self.bookings) + 1}"
        booking.state = BOOKED
        self.bookings[booking.name] = booking
        return booking

    def CancelBooking(self, request, context):
        booking = self.find(request.name, context)
        if booking.state == CANCELLED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the booking is already cancelled")
        booking.state = CANCELLED
        return booking


server = grpc.server(futures.ThreadPoolExecutor(4))
services.add_BookingsServicer_to_server(Bookings(), server)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print(f"listening on 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
