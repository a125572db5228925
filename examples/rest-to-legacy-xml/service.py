"""A claims service from 2004: XML requests and responses, status 200 for everything."""

import sys
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMESPACE = "urn:acme:claims"
NOTES = []


def tag(name):
    return f"{{{NAMESPACE}}}{name}"


def handle(request):
    number = request.findtext(tag("ClaimNo"))
    reply = ElementTree.Element(tag("ClaimReply"))
    if number != "C-17":
        fault = ElementTree.SubElement(reply, tag("Fault"), code="17")
        fault.text = "CLAIM NOT FOUND IN TABLE CLM0417"
        return reply
    if request.tag == tag("AddNote"):
        NOTES.append(request.findtext(tag("Text")))
        ElementTree.SubElement(reply, tag("Notes")).text = str(len(NOTES))
        return reply
    ElementTree.SubElement(reply, tag("ClaimNo")).text = number
    ElementTree.SubElement(reply, tag("Amount"), currency="EUR").text = "1234567890123456.70"
    ElementTree.SubElement(reply, tag("Open")).text = "Y"
    for part in ("085", "12a"):
        ElementTree.SubElement(reply, tag("Part")).text = part
    return reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = ElementTree.tostring(handle(ElementTree.fromstring(body)), encoding="utf-8", xml_declaration=True)
        self.send_response(200)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
