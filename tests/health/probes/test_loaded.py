"""No check imports anything: the monitor that makes it has an empty root directory by then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "loading.py"


def test_nothing_is_imported(tmp_path: Path) -> None:
    """Of each type of check that reads an answer, and the agent; the certificate of the server ends
    tomorrow.
    """
    both = tmp_path / "both.pem"
    key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(both)]
    command = ["openssl", "req", "-x509", "-newkey", *key, "-subj", "/CN=a", "-days", "1"]
    made = subprocess.run(command, capture_output=True, check=True)
    both.write_bytes(both.read_bytes() + made.stdout)
    command = [sys.executable, str(SCRIPT), str(both)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "tcp, L7OK, received 'b', ",
        "redis, L7OK, PONG, ",
        "postgresql, L7OK, authentication: no password, ",
        "http, L7OK, status 200, ",
        "https, L7OK, status 200, certificate expires",
        "dns, L7OK, NOERROR: 192.0.2.1, ",
        "agent, 50",
    ], done.stderr
