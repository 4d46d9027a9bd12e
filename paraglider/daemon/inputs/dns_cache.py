"""The last DNS answers, kept over a restart, so that a failing name server removes no backend.

Rules: an answer is kept when it has been applied, and for as long as a service refers to its name.
It is validated again at the next start. An answer that cannot be written is logged once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from paraglider.daemon.messages import DnsName, DnsUpdate
from paraglider.host.dns_cache import DnsCacheFile


class DnsCache:
    """The answers in ``file``; without a file nothing is kept.

    New answers are written if ``warn`` is given; it is called like structlog's ``warning`` when
    they cannot be written.
    """

    def __init__(
        self, file: DnsCacheFile | None = None, warn: Callable[..., object] | None = None
    ) -> None:
        self._file = file
        self._warn = warn
        self._answers: dict[DnsName, DnsUpdate] = {}
        self._failed = False
        for plain in file.load() if file is not None else ():
            with contextlib.suppress(ValidationError):
                found = _read(plain)
                self._answers[found.name] = found

    def get(self, name: DnsName) -> DnsUpdate | None:
        """The last answer for ``name``."""
        return self._answers.get(name)

    def add(self, answer: DnsUpdate) -> None:
        """Keep ``answer``, which has been applied."""
        before = self._answers.get(answer.name)
        if before is None or before.records != answer.records:
            self._answers[answer.name] = answer
            self._store()

    def keep_only(self, names: Iterable[DnsName]) -> None:
        """Remove the answers for all other names."""
        left = self._answers.keys() & set(names)
        if len(left) < len(self._answers):
            self._answers = {name: self._answers[name] for name in self._answers if name in left}
            self._store()

    def _store(self) -> None:
        if self._file is None or self._warn is None:
            return
        try:
            self._file.store([_plain(answer) for answer in self._answers.values()])
        except OSError as error:
            if not self._failed:
                self._warn(
                    "DNS cache not written",
                    file=str(self._file.path),
                    why=error.strerror,
                )
            self._failed = True


#: the key of an answer in the file, in every version
_MARK: Final = {"do": "answer"}


def _read(plain: Mapping[str, Any]) -> DnsUpdate:
    """The answer stored as ``plain``; raises ``ValidationError``."""
    fields = {name: value for name, value in plain.items() if name not in _MARK}
    return DnsUpdate.model_validate_json(json.dumps(fields))


def _plain(answer: DnsUpdate) -> dict[str, Any]:
    """The plain form for ``_read``, of this version and others."""
    fields = answer.model_dump(mode="json", exclude={"type"})
    return {**_MARK, **fields, "name": answer.name._asdict()}
