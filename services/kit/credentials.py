"""Secrets from files: read when they change, compared in constant time, never logged."""

from __future__ import annotations

import base64
import hmac
import time
from pathlib import Path


class CredentialFileError(RuntimeError):
    """A credential file is missing, empty or malformed; the message names the file, never its content."""


class SecretFile:
    """The stripped text of one file, re-read when the file's modification time changes (a rotated secret needs no restart)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[float, int] | None = None
        self._text = ""
        self._looked_at = float("-inf")

    def read(self, *, at_most_old: float = 0.0) -> str:
        """The secret; raises `CredentialFileError` when the file cannot be read or is empty. The file is not looked at again
        within so many seconds after it was found good."""
        now = time.monotonic()
        if now - self._looked_at < at_most_old:
            return self._text
        self._looked_at = float("-inf")
        try:
            status = self.path.stat()
            if (status.st_mtime, status.st_ino) != self._seen:
                self._text = self.path.read_text().strip()
                self._seen = (status.st_mtime, status.st_ino)
        except OSError as error:
            raise CredentialFileError(f"cannot read {self.path}: {error.strerror}") from error
        if not self._text:
            raise CredentialFileError(f"{self.path} is empty; put the secret into it, on one line")
        self._looked_at = now
        return self._text


class Callers:
    """Who may call: one ``name:secret`` a line. The secret serves as the Basic password of that name, or as a bearer token."""

    def __init__(self, path: Path) -> None:
        self._file = SecretFile(path)

    def identify(self, authorization: str | None) -> str | None:
        """The caller's name for an ``Authorization`` header, None when it proves nobody."""
        scheme, _, presented = (authorization or "").partition(" ")
        found = None
        for line in self._file.read().splitlines():
            name, _, secret = line.strip().partition(":")
            if not name or not secret:  # an empty secret would be known to everybody
                raise CredentialFileError(f"{self._file.path}: every line must read name:secret")
            if hmac.compare_digest(self._expected(scheme.lower(), name, secret), presented.strip().encode()):
                found = name
        return found

    @staticmethod
    def _expected(scheme: str, name: str, secret: str) -> bytes:
        if scheme == "basic":
            return base64.b64encode(f"{name}:{secret}".encode())
        return secret.encode() if scheme == "bearer" else b"\0"


def basic(name: str, secret: str) -> str:
    """The header value a client sends."""
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()
