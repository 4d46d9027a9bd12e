"""Certificates for tests of TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(directory: Path, name: str) -> Path:
    """A self-signed certificate for ``name``, and its key, in one file in ``directory``."""
    file = directory / "both.pem"
    key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    where = ["-days", "2", "-keyout", str(file), "-out", "-"]
    command = ["openssl", "req", "-x509", "-newkey", *key, *subject, *where]
    made = subprocess.run(command, capture_output=True, check=True)
    file.write_bytes(file.read_bytes() + made.stdout)
    return file
