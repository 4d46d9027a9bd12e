"""``MethodFacts``: tests of the facts and descriptions of a forwarding method.

A method's test file derives a class from it and gives the values.
"""

from __future__ import annotations

from typing import Any, ClassVar

from paraglider.config.model import Service
from paraglider.forward.base import ForwardMethod

#: keys of a service, and what follows from them
Case = tuple[dict[str, Any], str, str]


class MethodFacts:
    """Tests of ``method``; the values of a class are those of one method."""

    method: ClassVar[ForwardMethod]
    #: queued, listens, conntracked, journalled
    work: ClassVar[tuple[bool, bool, bool, bool]]
    #: owns_vip, neighbours, loopback
    addresses: ClassVar[tuple[bool, bool, bool]]
    options: ClassVar[frozenset[str]]
    #: what the description has, and what it leaves out
    described: ClassVar[tuple[Case, ...]]
    #: what a backend's host needs, and why
    needs: ClassVar[tuple[Case, ...]]
    #: the way of the answers, and whether they pass this host
    answers: ClassVar[tuple[tuple[dict[str, Any], str, bool], ...]]

    def service(self, **changes: Any) -> Service:
        """A service of the method with these keys."""
        base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
        return Service.model_validate({**base, "forward": self.method.name, **changes})

    def test_it_is_the_method_of_its_services(self) -> None:
        """With the facts that the configuration, the host and the workers use."""
        method = self.method
        assert type(self.service().method) is type(method)
        work = (method.queued, method.listens, method.conntracked, method.journalled)
        assert work == self.work
        assert (method.owns_vip, method.neighbours, method.loopback) == self.addresses
        assert method.options == self.options

    def test_the_description_of_a_service(self) -> None:
        """It depends on the service's own keys, and omits what does not apply."""
        for keys, wanted, absent in self.described:
            text = self.method.describe(self.service(**keys))
            assert wanted in text, keys
            assert absent not in text, keys

    def test_what_a_backends_host_needs(self) -> None:
        """They depend on the service's own keys."""
        for keys, needed, why in self.needs:
            found, text = self.method.backend_need(self.service(**keys))
            assert found == needed, keys
            assert why in text, keys

    def test_the_way_of_the_answers(self) -> None:
        """And whether this host forwards the answers."""
        for keys, way, passes in self.answers:
            one = self.service(**keys)
            assert (self.method.answers(one), self.method.answers_pass(one)) == (way, passes), keys
