"""Keys of removed entries, of which events may still be in the ring.

An event of an earlier flow with the same key would be taken for one of the present flow. So a key
is doubtful from when its entry is removed, other than by an event, until the ring has been read to
its end twice. At the start every key is doubtful, since the predecessor's keys are not known.

Lives here: ``RemovedKeys``, which all carriers of a worker share.
Rules: the number of keys is bounded; beyond it, every key is doubtful.
"""

from __future__ import annotations

from typing import Final

#: most keys that are kept
MOST_KEYS: Final = 1 << 16
#: readings to the end of the ring, after which all events that were sent before have been read
READINGS: Final = 2


class RemovedKeys:
    """The keys that are doubtful."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._keys: set[bytes] = set()
        self._keys_before: set[bytes] = set()  # those added before the last reading
        self._all_doubtful = READINGS  # readings until not every key is doubtful

    def add(self, key: bytes) -> None:
        """Add ``key``."""
        if len(self._keys) < self._most:
            self._keys.add(key)
        else:
            self._all_doubtful = READINGS + 1  # the next reading may have begun

    def is_doubtful(self, key: bytes) -> bool:
        """Whether an event with ``key`` may be an earlier flow's."""
        return self._all_doubtful > 0 or key in self._keys or key in self._keys_before

    def ring_was_read(self) -> None:
        """The ring has been read to its end."""
        self._keys_before = self._keys
        self._keys = set()
        if self._all_doubtful > 0:
            self._all_doubtful -= 1
