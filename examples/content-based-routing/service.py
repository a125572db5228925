"""Four services in one: customers, fulfilment (new and old) and audit. They echo their requests."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SEEN = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self, document):
        body = document.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/seen":
            return self.respond(json.dumps(SEEN))
        tier = "gold" if self.path.endswith("/c-7") else "plain"
        return self.respond(json.dumps({"tier": tier}))

    def do_POST(self):
        # The text is not parsed: a JSON library would change the digits.
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        SEEN.append([self.path, body])
        self.respond('{"by":"%s","order":%s}' % (self.path.strip("/"), body))

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
