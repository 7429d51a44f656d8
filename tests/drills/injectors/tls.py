"""TLS in front of a server: certificates of an authority of our own, good ones and bad ones."""

from __future__ import annotations

import http.client
import http.server
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.drills.injectors.proxy import Network

_DAY = timedelta(days=1)


class Authority:
    """Issues certificates; whoever has its file trusts them."""

    def __init__(self, folder: Path, name: str = "drill authority") -> None:
        """`file` is written; the key is nowhere but here."""
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _draft(self._name, self._name, self._key, timedelta())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, *, age: timedelta = timedelta()) -> Path:
        """Key and certificate of a host, in one file; good for a day from now, less its `age`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _draft(_named(host), self._name, key, age)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{certificate.serial_number}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, age: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC) - age
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def front(certificate: Path) -> ssl.SSLContext:
    """For a link that shows this certificate. Loading another one into it is felt by connections that are made later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def prove() -> None:
    """A careful client gets an answer from the good certificate alone: not from an expired one, another host's, a stranger's."""
    with tempfile.TemporaryDirectory() as name, _server() as address, Network() as network:
        folder = Path(name)
        authority = Authority(folder)
        good = authority.issue("localhost")
        context = front(good)
        link = network.link("tls", address, tls=context)
        trusting = ssl.create_default_context(cafile=str(authority.file))
        assert _asked(link.port, trusting) == "hello"
        for bad in (
            authority.issue("localhost", age=2 * _DAY),
            authority.issue("elsewhere.test"),
            Authority(folder, "a stranger").issue("localhost"),
        ):
            context.load_cert_chain(bad)
            assert _asked(link.port, trusting) == "refused"
        context.load_cert_chain(good)
        assert _asked(link.port, trusting) == "hello"


def _asked(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except ssl.SSLCertVerificationError:
        return "refused"
    finally:
        connection.close()


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def _server() -> Iterator[tuple[str, int]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
