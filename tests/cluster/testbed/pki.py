"""A bed's certificates, made by openssl: one authority, and what it has signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Longer than any bed lives; a key of a bed that is gone opens nothing.
_DAYS = "7"


class Authority:
    """Signs certificates, each with its key in ``NAME.crt`` and ``NAME.key`` in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        self.directory = directory
        self.certificate = directory / "ca.crt"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", _DAYS, "-subj", "/CN=testbed-ca"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(directory / "ca.key"), "-out", str(self.certificate)),
        )

    def server(self, name: str, *, addresses: list[str], names: list[str]) -> None:
        """A certificate of a server that is reached at these addresses and names."""
        alternatives = ",".join([*(f"IP:{a}" for a in addresses), *(f"DNS:{n}" for n in names)])
        self._sign(name, f"/CN={name}", f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth\n")

    def client(self, name: str, *, user: str, group: str = "") -> None:
        """A certificate by which the API server knows ``user`` as a member of ``group``."""
        self._sign(name, (f"/O={group}" if group else "") + f"/CN={user}", "extendedKeyUsage=clientAuth\n")

    def key_pair(self, name: str) -> None:
        """A key without a certificate: ``NAME.key`` and its public part ``NAME.pub``."""
        key = str(self.directory / f"{name}.key")
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _openssl("ec", "-in", key, "-pubout", "-out", str(self.directory / f"{name}.pub"))

    def _sign(self, name: str, subject: str, extensions: str) -> None:
        stem = self.directory / name
        stem.with_suffix(".ext").write_text(extensions)
        _openssl("req", *_NEW_KEY, "-subj", subject, "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        _openssl(
            *("x509", "-req", "-in", f"{stem}.csr", "-days", _DAYS, "-extfile", f"{stem}.ext", "-out", f"{stem}.crt"),
            *("-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key"), "-CAcreateserial"),
        )


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
