"""Brokers that are not as they should be: a real Valkey with other lines in its configuration."""

import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from redis import Redis

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared.broker import connect


class ConfiguredBroker(EmbeddedBroker):
    """A Valkey server with more lines of configuration, which win over the usual ones."""

    def __init__(self, directory: Path, *lines: str) -> None:
        super().__init__(directory)
        self._lines = lines

    def _write_config(self) -> Path:
        path = super()._write_config()
        with path.open("a") as file:
            file.write("\n".join(self._lines) + "\n")
        return path


def flushed(url: str) -> Redis:
    """Return a client on an empty server."""
    redis = connect(url)
    redis.flushall()
    return redis


def make_certificates(folder: Path) -> None:
    """Write ca.pem, server.pem and server.key: a private CA, and a server called localhost."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "rsa:2048", "-nodes", "-sha256")
    ca_rights = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(
        *("req", "-x509", *new_key, "-days", "30", "-subj", "/CN=test CA", *ca_rights),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    openssl(
        *("req", *new_key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "30", "-extfile", "names", "-out", "server.pem"),
    )


class TlsProxy:
    """Speaks TLS in front of a server without it, as stunnel does; of `make_certificates`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._pass_on, args=(raw,), daemon=True).start()

    def _pass_on(self, raw: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(raw, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                while True:
                    waiting = client.pending() > 0
                    ready, _, _ = select.select([client, server], [], [], 0 if waiting else None)
                    if waiting or client in ready:
                        server.sendall(client.recv(65536) or _gone())
                    if server in ready:
                        client.sendall(server.recv(65536) or _gone())
        except OSError:  # one side has left, or the client does not trust us
            return

    def close(self) -> None:
        self._socket.close()


def _gone() -> bytes:
    raise ConnectionError("one side has left")
