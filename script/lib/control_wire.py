# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls as bytes on a socket, ours and our peers', so that no client library is measured on one side only.

A Caller sends the same prepared request again and again and reads until the reply is whole.
"""
import json
import socket
import struct
import time

BUFFER = 65536


class WireError(Exception):
    """The other side closed, refused, or answered something else."""


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    return sock


def read(sock, whole, have=b""):
    """What has come (after @have) once it is whole."""
    while not whole(have):
        more = sock.recv(BUFFER)
        if not more:
            raise WireError(f"closed after {have!r}")
        have += more
    return have


class Caller:
    """@whole: whether these bytes are a whole reply. @good: whether this reply is what was asked for."""

    def __init__(self, sock, request, whole, good):
        self.sock, self.request, self.whole, self.good = sock, request, whole, good

    def send(self):
        self.sock.sendall(self.request)

    def receive(self):
        return read(self.sock, self.whole)

    def check(self, reply):
        if not self.good(reply):
            raise WireError(f"{self.request!r} was answered {reply!r}")

    def once(self):
        self.send()
        reply = self.receive()
        self.check(reply)
        return reply

    def timed(self):
        begin = time.perf_counter_ns()
        self.send()
        reply = self.receive()
        took = time.perf_counter_ns() - begin
        self.check(reply)
        return took

    def close(self):
        self.sock.close()


# ---- JSON-RPC and QMP: a line each ----

def line(reply):
    return reply.endswith(b"\n")


def rpc(path, method, **params):
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return Caller(connect(path), json.dumps(request).encode() + b"\n", line, lambda r: b'"result"' in r)


def call(path, method, **params):
    """Once, on a connection of its own."""
    caller = rpc(path, method, **params)
    result = json.loads(caller.once())["result"]
    caller.close()
    return result


def qmp(path, command):
    sock = connect(path)
    read(sock, line)  # the greeting
    Caller(sock, b'{"execute":"qmp_capabilities"}\n', line, lambda r: b'"return"' in r).once()
    return Caller(sock, b'{"execute":"%s"}\n' % command.encode(), line, lambda r: b'"return"' in r)


# ---- REST: HTTP/1.1, kept alive ----

def http_whole(reply):
    head = reply.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = reply.lower().find(b"\r\ncontent-length:", 0, head)
    return at >= 0 and len(reply) >= head + 4 + int(reply[at + 17 : reply.index(b"\r", at + 17)])


def rest(path, url):
    request = f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return Caller(connect(path), request, http_whole, lambda r: r.startswith(b"HTTP/1.1 200 "))


# ---- D-Bus ----

DBUS_RETURN, DBUS_SIGNAL = 2, 4


def dbus_string(data, text):
    """@data with @text after it, aligned."""
    return data + b"\0" * (-len(data) % 4) + struct.pack("<I", len(text)) + text.encode() + b"\0"


def dbus_message(path, interface, member, destination, *strings):
    """A method call whose arguments are strings."""
    fields = b""
    for code, kind, value in ((1, b"o", path), (2, b"s", interface), (3, b"s", member), (6, b"s", destination)):
        fields += b"\0" * (-len(fields) % 8) + bytes([code, 1]) + kind + b"\0"
        fields = dbus_string(fields, value)
    if strings:
        signature = bytes([len(strings)]) + b"s" * len(strings) + b"\0"
        fields += b"\0" * (-len(fields) % 8) + bytes([8, 1]) + b"g\0" + signature
    body = b""
    for text in strings:
        body = dbus_string(body, text)
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), 1, len(fields)) + fields
    return head + b"\0" * (-len(head) % 8) + body


def dbus_length(reply):
    body, _, fields = struct.unpack_from("<III", reply, 4)
    return 16 + (fields + 7) // 8 * 8 + body


def dbus_whole(reply):
    return len(reply) >= 16 and len(reply) >= dbus_length(reply)


class DbusCaller(Caller):
    def receive(self):
        """Signals may come before the reply: services send them to whoever may see what changed."""
        reply = super().receive()
        while reply[1] == DBUS_SIGNAL:
            reply = read(self.sock, dbus_whole, reply[dbus_length(reply) :])
        return reply


def dbus_property(path, destination, object_path, interface, name):
    sock = connect(path)
    sock.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
    told = read(sock, lambda text: text.count(b"\r\n") == 2)
    if b"OK " not in told:
        raise WireError(f"the bus refused us: {told!r}")
    hello = dbus_message("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "org.freedesktop.DBus")
    sock.sendall(b"BEGIN\r\n" + hello)
    # Its reply and the signal NameAcquired, which may come in one piece.
    read(sock, lambda got: dbus_whole(got) and dbus_whole(got[dbus_length(got) :]))
    request = dbus_message(object_path, "org.freedesktop.DBus.Properties", "Get", destination, interface, name)
    return DbusCaller(sock, request, dbus_whole, lambda r: r[1] == DBUS_RETURN and len(r) == dbus_length(r))


# ---- libvirt: XDR with a length before it (virnetprotocol.x, remote_protocol.x) ----

LIBVIRT_PROGRAM, LIBVIRT_VERSION = 0x20008086, 1
CONNECT_OPEN, DOMAIN_LOOKUP_BY_NAME, AUTH_LIST, DOMAIN_GET_STATE = 1, 23, 66, 212
LIBVIRT_HEAD = struct.Struct(">IIIIiII")  # length, program, version, procedure, type, serial, status


def xdr_string(text):
    return struct.pack(">I", len(text)) + text.encode() + b"\0" * (-len(text) % 4)


def libvirt_whole(reply):
    return len(reply) >= 4 and len(reply) >= struct.unpack_from(">I", reply)[0]


def libvirt_call(sock, procedure, args=b""):
    length = LIBVIRT_HEAD.size + len(args)
    head = LIBVIRT_HEAD.pack(length, LIBVIRT_PROGRAM, LIBVIRT_VERSION, procedure, 0, 1, 0)
    return Caller(sock, head + args, libvirt_whole,
                  lambda r: LIBVIRT_HEAD.unpack_from(r)[3:] == (procedure, 1, 1, 0))


def libvirt_state(path, uri, domain):
    """virDomainGetState()"""
    sock = connect(path)
    libvirt_call(sock, AUTH_LIST).once()
    libvirt_call(sock, CONNECT_OPEN, struct.pack(">I", 1) + xdr_string(uri) + struct.pack(">I", 0)).once()
    found = libvirt_call(sock, DOMAIN_LOOKUP_BY_NAME, xdr_string(domain)).once()
    return libvirt_call(sock, DOMAIN_GET_STATE, found[LIBVIRT_HEAD.size :] + struct.pack(">I", 0))
