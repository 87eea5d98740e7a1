"""Authorities, and the certificates that they sign: made by openssl, for 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

__all__ = ["Authority", "Certificate", "client_context"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(NamedTuple):
    """Files of a certificate and of its key."""

    path: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Options with which a worker shows this certificate."""
        return ("--tls-cert", str(self.path), "--tls-key", str(self.key))


class Authority:
    """Authority in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.path, self._key = self.folder / "ca.pem", self.folder / "ca.key"
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.path, "-subj", f"/CN={name}")

    def sign(self, name: str, use: Literal["serverAuth", "clientAuth"] | None, folder: Path) -> Certificate:
        """Return a new certificate in a folder: for one use, or for any."""
        made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        request, extensions = self.folder / "request", self.folder / "extensions"
        _openssl("req", "-new", *_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        lines = ["subjectAltName = IP:127.0.0.1", *([] if use is None else [f"extendedKeyUsage = {use}"])]
        extensions.write_text("\n".join(lines))
        signer = ("-CA", self.path, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signer, "-out", made.path)
        return made


def client_context(authority: Authority, certificate: Certificate | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts an authority, and shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.path)
    if certificate is not None:
        context.load_cert_chain(certificate.path, certificate.key)
    return context


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        message = "there is no openssl on this machine (Debian: apt-get install openssl)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    subprocess.run([program, *arguments], check=True, capture_output=True)
