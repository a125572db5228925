"""A legacy exchange rate service: JSON over HTTP, with more digits than a double can hold."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RATES = {"EUR/USD": "1.08370000000000000001", "EUR/JPY": "162.50"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        rate = RATES.get(self.path.removeprefix("/rates/"))
        status, body = 404, b'{"error":"no such pair in table FXR_02"}'
        if rate:
            status, body = 200, b'{"mid":%s,"ttl":30,"bank":"first","desks":["spot","forward"]}' % rate.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
