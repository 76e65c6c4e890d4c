# SPDX-License-Identifier: LGPL-2.1-or-later
"""Identities for tests: certificates of an authority of our own, tokens, and other users' sockets."""
import contextlib
import json
import os
import socket
import ssl
import subprocess

from conftest import HANG, VMCTL, Client

CONFIG = """
[ca]
default_ca = us
[us]
dir = {0}
new_certs_dir = {0}
database = {0}/index
serial = {0}/serial
crlnumber = {0}/crlnumber
certificate = {0}/ca.pem
private_key = {0}/ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[v3_ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
"""


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=HANG)


class Authority:
    """Signs, revokes, lists the revoked."""

    def __init__(self, folder):
        os.makedirs(folder)
        self.folder = folder
        self.config = self.path("conf")
        with open(self.config, "w") as f:
            f.write(CONFIG.format(folder))
        for name, text in (("index", ""), ("serial", "01\n"), ("crlnumber", "01\n")):
            with open(self.path(name), "w") as f:
                f.write(text)
        openssl("req", "-x509", "-config", self.config, "-extensions", "v3_ca", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=test authority", "-keyout",
                self.path("ca.key"), "-out", self.path("ca.pem"))
        self.list_revoked()

    def path(self, name):
        return os.path.join(self.folder, name)

    def sign(self, cn, *dates, san=None, name=None):
        """A certificate and key; their paths."""
        name = name or cn
        cert, key, request = (self.path(name + end) for end in (".pem", ".key", ".csr"))
        extra = ["-addext", f"subjectAltName={san}"] if san else []
        openssl("req", "-config", self.config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={cn}", "-keyout", key, "-out", request, *extra)
        openssl("ca", "-batch", "-notext", "-config", self.config, "-in", request, "-out", cert, *dates)
        return cert, key

    def revoke(self, name):
        openssl("ca", "-config", self.config, "-revoke", self.path(name + ".pem"))
        self.list_revoked()

    def list_revoked(self):
        openssl("ca", "-config", self.config, "-gencrl", "-out", self.path("crl.pem"))


class TlsClient(Client):
    """The same JSON-RPC over TLS. No descriptors come that way."""

    def __init__(self, port, ca, cert=None, key=None):
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        raw = socket.create_connection(("127.0.0.1", port), HANG)
        try:
            self.start(context.wrap_socket(raw, server_hostname="localhost"))
        except BaseException:
            raw.close()
            raise

    def start(self, sock):
        self.sock = sock
        self.text, self.fds, self.events, self.last_id = b"", [], [], 0

    def receive(self):
        while b"\n" not in self.text:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.text += data
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)


class OtherUsersClient(Client):
    """Connects as another user of this host. Only root can."""

    def __init__(self, path, uid, gids):
        ours, childs = socket.socketpair()
        pid = os.fork()
        if not pid:
            status = 1
            with contextlib.suppress(BaseException):
                os.chdir(os.path.dirname(path))
                os.setgroups(gids)
                os.setresgid(gids[0], gids[0], gids[0])
                os.setresuid(uid, uid, uid)
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(os.path.basename(path))
                socket.send_fds(childs, [b"x"], [sock.fileno()])
                status = 0
            os._exit(status)
        childs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        ours.close()
        assert os.waitpid(pid, 0)[1] == 0, "the other user cannot connect"
        self.sock = socket.socket(fileno=fds[0])
        self.sock.settimeout(HANG)
        self.text, self.fds, self.events, self.last_id = b"", [], [], 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Guarded:
    """A umbrad with everything that knows people apart."""

    def __init__(self, host, authority):
        self.host, self.authority = host, authority
        self.port, self.https = free_port(), free_port()
        self.tokens = os.path.join(host.folder, "tokens")
        self.config = os.path.join(host.folder, "umbrad.conf")
        self.crl = os.path.join(host.folder, "crl.pem")
        self.copy_crl()
        host.env["UMBRA_CONFIG"] = self.config

    def copy_crl(self):
        with open(self.authority.path("crl.pem"), "rb") as f, open(self.crl, "wb") as out:
            out.write(f.read())

    def write(self, *more, tokens=True):
        a = self.authority
        with open(self.config, "w") as f:
            f.write(f"[listen]\ntls = 127.0.0.1:{self.port}\nhttps = 127.0.0.1:{self.https}\n[tls]\n"
                    f"cert = {a.path('localhost.pem')}\nkey = {a.path('localhost.key')}\nca = {a.path('ca.pem')}\n"
                    f"crl = {self.crl}\n" + (f"tokens = {self.tokens}\n" if tokens else "") +
                    "[access]\nadmin_certs = alice\noperate_certs = bob\nread_certs = carol c?r*l2\n" +
                    "".join(line + "\n" for line in more))

    def start(self):
        r = self.host.vmctl("list")
        assert r.returncode == 0, r.stderr

    def token(self, name, level):
        r = subprocess.run([VMCTL, "token", "new", name, "--level", level, "--file", self.tokens],
                           env=self.host.env, capture_output=True, timeout=HANG)
        assert r.returncode == 0, r.stderr
        return r.stdout.decode().split()[-1]

    def tls(self, who=None):
        a = self.authority
        return TlsClient(self.port, a.path("ca.pem"), *((a.path(who + ".pem"), a.path(who + ".key")) if who else ()))

    def token_client(self, secret, who=None):
        client = self.tls(who)
        client.ok("system.authenticate", token=secret)
        return client
