"""A booking service: service.py PORT. It rejects orders without pieces; GET / lists the bookings."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOOKED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.respond(200, BOOKED)

    def do_POST(self):
        booking = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if any(article["pieces"] <= 0 for article in booking["articles"]):
            return self.respond(422, {"problem": "nothing to book"})
        BOOKED.append(booking)
        self.respond(200, {"booked": len(BOOKED)})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
