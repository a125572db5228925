"""A webhook: service.py PORT. GET / lists the bodies that were delivered."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DELIVERED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.respond(200, json.dumps(DELIVERED).encode())

    def do_POST(self):
        DELIVERED.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.respond(200)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
