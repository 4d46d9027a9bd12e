"""The translations of a worker in the BPF carrier's maps.

    slots          index → name of service and backend, claimed by the first worker that needs it
    translations   index → addresses, ports, and whether the backend is lost
    origins        a backend's address, port and protocol → index of the translation of its replies

An index is found by probing from a hash of the name, so every worker, and the next daemon, finds
the same one. An origin is for all flows with the same VIP and port. Flows are ``aliased``, which
means that their replies need an entry of their own, if the origin of their backend's port leads to
another VIP or port, or if their service has many ports.

Slots that no worker holds become free again, with their origins (``reclaim``).

Rules: all workers write the same values; a value is written only if it has changed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from functools import partial
from struct import calcsize
from typing import Final, Self

from paraglider.bpf.layout import (
    DSR,
    INDEX,
    LOST_DATAGRAMS,
    LOST_FLOWS,
    NAT,
    ORIGIN,
    TRANSLATION,
    TRANSLATIONS,
    TUNNEL,
    UP,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.slot_names import slot_name

#: indices that are tried for one translation; about ten suffice while less than half are in use
MOST_PROBES: Final = 1024
#: ports of a service that get an origin each; the flows of one with more are aliased
MOST_PORTS: Final = 64

#: name of a slot that becomes free soon, unless a worker that holds it restores the name
RETIRED: Final = b"\xff" * 8
#: elements of a map, or translations, in one step of a task
CHUNK: Final = 125
#: seconds within which each worker has verified the names of all its slots; at 20 calls a second
#: that takes less than half as long
VERIFIED_WITHIN: Final = 30.0

_UNMAPPED: Final = bytes(2)
_NO_NAME: Final = bytes(8)
_TURNS: Final = 256  # calls of ``verify`` for all slots
_ENDS: Final = calcsize("=16s16s2s2sBB")  # of TRANSLATION: addresses, ports, family and method


class UsedSlots:
    """The names in the map of slots: ``indices`` by name, and the ``used`` indices, which include
    those of retired names.
    """

    def __init__(self) -> None:
        self.indices: dict[bytes, int] = {}
        self.used: set[int] = set()

    @classmethod
    def read(cls, maps: CarrierMaps) -> Self:
        """Those of ``maps``; raises ``OSError``."""
        found = cls()
        for elements in maps.slots.dump():
            found.add(*elements)
        return found

    def add(self, keys: bytes, names: bytes, count: int) -> None:
        """Add ``count`` elements of the map."""
        for at in range(count):
            (index,) = INDEX.unpack_from(keys, at * INDEX.size)
            self.indices[names[at * len(RETIRED) : (at + 1) * len(RETIRED)]] = index
            self.used.add(index)


class Slots:
    """The carried translations by their index in ``maps``."""

    def __init__(self, maps: CarrierMaps) -> None:
        self._maps = maps
        self._by_index: dict[int, Translation] = {}
        self._names: dict[int, bytes] = {}
        self._by_effect: dict[bytes, Translation] = {}  # by its value without the name
        self._written: dict[int, bytes] = {}
        self._changed: set[int] = set()
        self._withdrawn: set[Translation] = set()
        self._watched: set[VirtualService] = set()
        self._unverified: list[int] = []
        self._share = 0  # slots to verify in a turn
        self._waiting: dict[Translation, bytes] = {}  # those without a place, and their names
        self._services: tuple[VirtualService, ...] = ()

    @property
    def held(self) -> set[int]:
        """The indices of all these translations."""
        return set(self._by_index)

    @property
    def unplaced(self) -> int:
        """The number of translations that found no free index; the worker carries their flows."""
        return len(self._waiting)

    def find(self, index: int) -> Translation | None:
        """The translation with ``index``, or None if it is not one of this worker's. An index that
        an earlier daemon claimed for a service with another name is kept.
        """
        found = self._by_index.get(index)
        if found is None and 0 < index < TRANSLATIONS:
            value = self._maps.translations.get(INDEX.pack(index))
            found = None if value is None else self._by_effect.get(value[:_ENDS])
            if value is not None and found is not None:
                self._by_index[index] = found
                self._names[index] = TRANSLATION.unpack(value)[-1]
                self._changed.add(index)
        return found

    def is_of(self, index: int, translation: Translation) -> bool:
        """Whether ``index`` is one of ``translation``: its own, or one with the same effect."""
        if index == translation.slot != 0:
            return True
        found = self.find(index)
        return found is not None and found.identity == translation.identity

    def configure(
        self, carried: Iterable[VirtualService], others: Iterable[VirtualService]
    ) -> bool:
        """Carry the flows of the services ``carried``, and no longer those of ``others``.

        Returns whether flows have to be given back to the worker. Translations of removed services
        stay while they have flows. Raises ``OSError`` if the kernel refuses.
        """
        services = self._services = tuple(carried)
        given_back = False
        for service in others:
            for translation in service.translations.values():
                if translation.slot:
                    translation.slot = 0
                    self._withdrawn.add(translation)
                    given_back = True
        self._waiting.clear()
        known: UsedSlots | None = None
        for service in services:
            for translation in service.translations.values():
                self._withdrawn.discard(translation)
                name = slot_name(service.name, translation.identity)
                if translation.slot and self._names.get(translation.slot) == name:
                    continue
                if known is None:
                    known = UsedSlots.read(self._maps)
                self._claim(name, translation, known)
        self._forget()
        self._complete()
        for service in services:
            if service not in self._watched:
                service.pool.watch(partial(self._states_changed, service))
        self._watched = set(services)
        return given_back

    def place_waiting(self) -> Iterator[None]:
        """Claim indices for the translations without one, as far as some have become free; yields
        after each step, and raises ``OSError``.
        """
        known = UsedSlots()
        for elements in self._maps.slots.dump(CHUNK):
            known.add(*elements)
            yield
        before = self.unplaced
        waiting = list(self._waiting.items()) if len(known.used) < TRANSLATIONS - 1 else []
        for at in range(0, len(waiting), CHUNK):
            for translation, name in waiting[at : at + CHUNK]:
                if self._waiting.get(translation) == name:  # else configured anew meanwhile
                    self._claim(name, translation, known)
            yield
        if self.unplaced < before:
            self._complete()

    def flush(self) -> None:
        """Write the translations that have changed; raises ``OSError`` if the kernel refuses."""
        while self._changed:
            index = self._changed.pop()
            if index not in self._by_index:
                continue
            value = self._value(self._by_index[index], self._names[index])
            if self._written.get(index) != value:
                self._maps.translations.put(INDEX.pack(index), value)
                self._written[index] = value

    def verify(self) -> None:
        """Restore the names of some held slots, if they are retired; raises ``OSError``."""
        if not self._unverified:
            self._unverified = list(self._by_index)
            self._share = 1 + len(self._by_index) // _TURNS
        for index in self._unverified[-self._share :]:
            name, key = self._names.get(index), INDEX.pack(index)
            if name is not None and self._maps.slots.get(key) == RETIRED:
                self._maps.slots.put(key, name)
        del self._unverified[-self._share :]

    def _states_changed(self, service: VirtualService, _ready: tuple[Backend, ...]) -> None:
        mine = set(service.translations.values())
        self._changed.update(index for index, one in self._by_index.items() if one in mine)

    def _claim(self, name: bytes, translation: Translation, known: UsedSlots) -> None:
        """Set the index of ``translation`` to that of ``name`` if it is among ``known``, which may
        come after a slot that has become free, or else to the first free one. Without one, it is 0,
        and the translation waits.
        """
        translation.slot = 0
        first, present = int.from_bytes(name, "big"), known.indices.get(name)
        probes = (1 + (first + probe) % (TRANSLATIONS - 1) for probe in range(MOST_PROBES))
        free = (index for index in probes if index not in known.used)
        for index in free if present is None else (present, *free):
            key = INDEX.pack(index)
            error = self._maps.slots.insert(key, name)
            known.used.add(index)
            if error not in (0, errno.EEXIST):
                break
            if error == 0 or self._maps.slots.get(key) == name:
                translation.slot = index
                self._by_index[index] = translation
                self._names[index] = name
                self._waiting.pop(translation, None)
                return
        self._waiting[translation] = name

    def _complete(self) -> None:
        """Add the origins of the translations with an index; ``flush`` writes what has changed."""
        self._add_origins(self._services)
        self._by_effect = {self._value(t, _NO_NAME)[:_ENDS]: t for t in self._by_index.values()}
        self._changed.update(self._by_index)

    def _forget(self) -> None:
        """Forget the translations of removed services and backends that have no flows here. Their
        origins stay until the slots become free: other workers may still have flows.
        """
        here = {t for service in self._services for t in service.translations.values()}
        gone = {
            index
            for index, t in self._by_index.items()
            if t not in here and not t.backend.has_flows
        }
        for index in gone:
            self._withdrawn.discard(self._by_index[index])
            del self._by_index[index], self._names[index]
            self._written.pop(index, None)

    def _add_origins(self, services: Iterable[VirtualService]) -> None:
        """Add the origins of the backends, and set which translations are aliased."""
        claims: dict[bytes, list[Translation]] = {}
        for service in services:
            for translation in service.translations.values():
                translation.aliased = not translation.direct and _ports(service) > MOST_PORTS
                if translation.slot and not translation.direct and not translation.aliased:
                    for key in _origin_keys(service, translation):
                        claims.setdefault(key, []).append(translation)
        for key, translations in claims.items():
            chosen = self._origin(key, translations)
            for translation in translations:
                if chosen is None or _reply_source(translation) != _reply_source(chosen):
                    translation.aliased = True

    def _origin(self, key: bytes, translations: list[Translation]) -> Translation | None:
        """The translation of the origin ``key``: the present one if it is among ``translations``,
        else the first of these, which is written; None if the map is full.
        """
        value = self._maps.origins.get(key)
        if value is not None:
            (index,) = INDEX.unpack(value)
            present = self._by_index.get(index)
            if present is not None and present in translations:
                return present
        chosen = translations[0]
        try:
            self._maps.origins.put(key, INDEX.pack(chosen.slot))
        except OSError as error:
            if error.errno in (errno.E2BIG, errno.ENOMEM):
                return None
            raise
        return chosen

    def _value(self, translation: Translation, name: bytes) -> bytes:
        state = UP
        if translation.lost or translation in self._withdrawn:
            state = LOST_FLOWS
        elif translation.datagrams_lost:
            state = LOST_DATAGRAMS
        ports = (_UNMAPPED, _UNMAPPED)
        if translation.mapped:
            ports = translation.vip_port, translation.backend_port
        method = DSR if translation.routed else NAT
        if translation.outer_port >= 0:
            method, ports = TUNNEL, (_UNMAPPED, translation.outer_port.to_bytes(2, "big"))
        return TRANSLATION.pack(
            translation.vip,
            translation.backend.address,
            *ports,
            4 if len(translation.vip) == 4 else 6,
            method,
            state,
            translation.aliased,
            name,
        )


def _ports(service: VirtualService) -> int:
    return sum(last - first + 1 for first, last in service.ports)


def _origin_keys(service: VirtualService, translation: Translation) -> Iterator[bytes]:
    """The keys of the origins of ``translation``, one of ``service``."""
    address, family = translation.backend_address, 4 if len(translation.vip) == 4 else 6
    for protocol in service.protocols:
        if protocol not in (TCP, UDP):
            continue
        if translation.mapped:
            yield ORIGIN.pack(address, translation.backend_port, protocol, family)
            continue
        for first, last in service.ports:
            for port in range(first, last + 1):
                yield ORIGIN.pack(address, port.to_bytes(2, "big"), protocol, family)


def _reply_source(translation: Translation) -> tuple[bytes, bytes]:
    """The source that replies get: the VIP, and its port if ports are mapped."""
    return translation.vip, translation.vip_port if translation.mapped else b""


def with_flows(services: Iterable[VirtualService]) -> bool:
    """Whether a translation of ``services`` without a slot has flows."""
    return any(
        not translation.slot and translation.backend.has_flows
        for service in services
        for translation in service.translations.values()
    )
