"""Policies: user-written strategies, whose code never runs with root's privileges.

Lives here: ``load``, which turns each `strategy: package.module:Class` of a configuration into a
registry entry behind a guard (``core.policy_guard``), and ``import_all``, which imports the
policies in the process that uses the registry.
Rules: ``load`` reads the files (``snapshot``) and imports nothing. A child process, with the
workers' user and no capabilities, tries each class before anything starts; its errors are reported
with the configuration's line. Each worker imports the same text as that user before chroot, so that
lazy imports of a policy work; changed files take effect at the next start.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pwd
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast
from weakref import WeakKeyDictionary

from paraglider.config.diagnostics import Problem
from paraglider.config.model import Config, Service
from paraglider.config.strategy import POLICY
from paraglider.core.flow import TCP, UDP
from paraglider.core.policy_guard import PolicyGuard, describe_error
from paraglider.core.pool import Backend
from paraglider.core.strategies import STRATEGIES, Context, Factory, NewFlow, Registry, Strategy
from paraglider.core.strategies.base import Picker, UserClass
from paraglider.core.strategies.rr import RoundRobin
from paraglider.errors import OperatorError
from paraglider.forward.load import LoadedConfig
from paraglider.forward.services import make_backends
from paraglider.host import trust
from paraglider.host.snapshot import Snapshot

#: the default directory, beside the configuration file
BESIDE: Final = "policies"

#: timeout of the trial of all policies, in seconds
TIMEOUT: Final = 30.0
_LONGEST: Final = 1 << 20

#: an error of a policy and its remedy; None if there is none
_Fault = tuple[str, str] | None

_MAKING: Final = "its constructor"
_METHODS: Final = {"prepare": "def prepare(self, ready)", "pick": "def pick(self, flow)"}
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}
# Addresses for documentation (RFC 5737, RFC 3849): no client has them.
_CLIENTS: Final = {4: bytes((192, 0, 2, 1)), 6: bytes.fromhex("20010db8" + "00" * 11 + "01")}
_CLIENT_PORT: Final = (49152).to_bytes(2, "big")


#: called with the service whose policy is called next
OnCall = Callable[[str], object]


def _ignore(_service: str) -> None:
    """Ignores which policy is called."""


class _PendingPolicy:
    """Placeholder for a policy that has not been imported yet."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """See ``Strategy``."""

    def pick(self, flow: NewFlow) -> Backend:
        """See ``Strategy``; the guard falls back to rr."""
        raise RuntimeError("the policy is not imported yet")


class PolicyRegistry(dict[str, Factory]):
    """A registry with the policies of ``services``, from ``files`` in ``directory``. ``budget`` is
    the longest time of a pick, in seconds.
    """

    def __init__(
        self, services: Sequence[Service], directory: Path, files: Snapshot, budget: float
    ) -> None:
        super().__init__(STRATEGIES)
        self._services = services
        self._directory = directory
        self._files = files
        self._classes: dict[str, UserClass] | None = None
        self._made: list[tuple[str, Context, PolicyGuard]] = []  # before ``import_all``
        self._guards: WeakKeyDictionary[PolicyGuard, str] = WeakKeyDictionary()
        self._suspended: frozenset[str] = frozenset()
        for service in services:
            self[service.strategy] = partial(self._create, service.strategy, budget)

    def suspend(self, services: Iterable[str]) -> None:
        """Suspend the policies of ``services`` and resume all others: rr picks for the suspended
        ones, in existing and future strategies.
        """
        self._suspended = frozenset(services)
        for guard, service in self._guards.items():
            guard.suspend(service in self._suspended)

    def tried(self, on_call: OnCall = _ignore) -> list[_Fault]:
        """Import the class of each service and try it out, unless it is suspended; returns the
        error of each.
        """
        found: dict[str, UserClass] = {}
        faults: list[_Fault] = []
        with self._files.importable():
            for service in self._services:
                on_call(service.name)
                try:
                    policy = _find(service.strategy, self._directory, self._files)
                    if service.name not in self._suspended:
                        _try(policy, service)
                except OperatorError as error:
                    faults.append((error.what, error.remedy))
                else:
                    found[service.strategy] = policy
                    faults.append(None)
            on_call("")
        self._classes = found
        return faults

    def import_all(self, on_call: OnCall = _ignore) -> list[str]:
        """Import the classes and install them in existing guards; returns the errors.

        If a class fails here, though its trial succeeded, rr picks for its service.
        """
        faults = zip(self._services, self.tried(on_call), strict=True)
        failed = [f"policy `{service.strategy}`: {fault[0]}" for service, fault in faults if fault]
        for name, context, guard in self._made:
            try:
                if self._classes and name in self._classes:
                    guard.set_policy(_made(name, self._classes[name], context))
            except OperatorError as error:
                failed.append(str(error))
        self._made.clear()
        return failed

    def _create(self, name: str, budget: float, context: Context) -> Strategy:
        """The policy ``name`` of a service in a worker, behind its guard."""
        policy: Picker = _PendingPolicy()
        if self._classes is not None and name in self._classes:
            policy = _made(name, self._classes[name], context)
        guard = PolicyGuard(policy, RoundRobin(context.worker), time.perf_counter, budget)
        guard.suspend(context.service in self._suspended)
        self._guards[guard] = context.service
        if self._classes is None:
            self._made.append((name, context, guard))
        return guard


def has_policies(registry: Registry) -> bool:
    """Whether ``registry`` has user-written strategies."""
    return isinstance(registry, PolicyRegistry)


def import_all(registry: Registry, on_call: OnCall = _ignore) -> list[str]:
    """Import the policies of ``registry``, if it has any, in this process; returns the errors.
    ``on_call`` is called with each service's name before its policy, and with "" at the end.
    """
    return registry.import_all(on_call) if isinstance(registry, PolicyRegistry) else []


def suspend(registry: Registry, services: Iterable[str]) -> None:
    """Suspend the policies of ``services``, and only these, in ``registry``: rr picks for them.
    Processes forked later inherit it.
    """
    if isinstance(registry, PolicyRegistry):
        registry.suspend(services)


def import_as(user: str, registry: Registry) -> None:
    """As ``import_all``, with the effective ids of ``user`` if run by root. Raises the first error
    as ``OperatorError``.
    """
    root = os.geteuid() == 0 and has_policies(registry)
    if root:
        found = pwd.getpwnam(user)
        os.setegid(found.pw_gid)
        os.seteuid(found.pw_uid)
    try:
        for failure in import_all(registry):
            raise OperatorError(failure, "try again: its trial succeeded")
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)


def load(loaded: LoadedConfig) -> Registry:
    """The registry of strategies with every policy in ``loaded``; ``import_all`` imports them.

    Raises ``ConfigError`` with a line for each service whose policy cannot be loaded, or fails its
    trial in an unprivileged process.
    """
    config = loaded.config
    policies = [
        (("services", index, "strategy"), service)
        for index, service in enumerate(config.services)
        if POLICY.fullmatch(service.strategy)
    ]
    if not policies:
        return STRATEGIES
    configured = config.policies.path
    directory = Path(configured or Path(loaded.file).absolute().parent / BESIDE)
    try:
        _check_directory(directory)
        files = Snapshot(directory)
    except OperatorError as error:
        place = ("policies", "path") if configured else policies[0][0]
        loaded.refuse([Problem(place, error.what, error.remedy)])
    services = [service for _, service in policies]
    registry = PolicyRegistry(services, directory, files, config.policies.budget_ms / 1000)
    faults = _faults(registry, len(services), config)
    loaded.refuse(
        Problem(place, f"policy `{service.strategy}`: {fault[0]}", fault[1])
        for (place, service), fault in zip(policies, faults, strict=True)
        if fault is not None
    )
    return registry


def _faults(registry: PolicyRegistry, count: int, config: Config) -> list[_Fault]:
    """The errors of ``count`` policies, from their trial in an unprivileged process."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # the child must not continue as the parent
            os.close(reading)
            _give_up(config)
            found = json.dumps(registry.tried()).encode()
            while found:
                found = found[os.write(writing, found) :]
        os._exit(0)
    os.close(writing)
    output, deadline = bytearray(), time.monotonic() + TIMEOUT
    while select.select([reading], [], [], max(deadline - time.monotonic(), 0.0))[0]:
        more = os.read(reading, 65536)
        output += more
        if not more or len(output) > _LONGEST:
            break
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        return [
            None if fault is None else (str(fault[0]), str(fault[1]))
            for fault in json.loads(output)
        ]
    except ValueError:
        what = f"the trial process died, or took longer than {TIMEOUT:g} s"
        return [(what, "do less work at import and in the constructor")] * count


def _give_up(config: Config) -> None:
    """Drop from root to the user of ``config``, without capabilities."""
    if os.geteuid() == 0:
        from paraglider.host import privileges  # imports prctl, which only this function needs

        found = pwd.getpwnam(config.user)
        privileges.drop(found.pw_uid, found.pw_gid, "/", keep=())


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise OperatorError(
            f"the policy directory {directory} does not exist",
            "create it, or set `path` under `policies`",
        )
    found = trust.untrusted(directory) if os.geteuid() == 0 else None
    if found is not None:
        raise OperatorError(*found)


def _find(name: str, directory: Path, files: Snapshot) -> UserClass:
    """The class called ``name`` (package.module:Class); raises ``OperatorError``."""
    module_name, _, class_name = name.partition(":")
    file = directory / (module_name.replace(".", "/") + ".py")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(f"importing {file}", error) from None
        raise OperatorError(
            f"{file} does not exist", "put the module there, or set `path` under `policies`"
        ) from None
    except SyntaxError as error:
        what = f"{error.filename}:{error.lineno}: {error.msg}"
        raise OperatorError(what, "correct the line") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        raise _failed(f"importing {file}", error) from None
    if not files.has(module):
        raise OperatorError(
            f"another module `{module_name}` hides {file}",
            "rename the module",
        )
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise OperatorError(
            f"{module.__file__} has no class `{class_name}`",
            f"the classes there are: {', '.join(classes) or 'none'}",
        )
    for method, shape in _METHODS.items():
        if not callable(getattr(found, method, None)):
            what = f"class `{class_name}` in {module.__file__} has no method `{method}`"
            raise OperatorError(what, f"add one: {shape}")
    return cast(UserClass, found)


def _try(policy: UserClass, service: Service) -> None:
    """Instantiate the class and let it pick a backend for a flow of each protocol of ``service``;
    raises ``OperatorError``.
    """
    ready = tuple(backend for backend in make_backends(service) if backend.weight)
    family, port = service.family, service.ports[0].first.to_bytes(2, "big")
    key = _CLIENTS[family] + service.vip.ip.packed + _CLIENT_PORT + port
    step = _MAKING
    try:
        context = Context(service.name, 0, service.hash_seed, service.strategy_parameters)
        strategy = policy(**context.keywords())
        step = "prepare"
        strategy.prepare(ready)
        step = "pick"
        for protocol in service.protocols:
            flow = NewFlow(_PROTOCOLS[protocol], key, time.monotonic())
            answer: object = strategy.pick(flow)
            if not any(answer is backend for backend in ready):
                raise OperatorError(
                    f"pick returned {type(answer).__name__}, not a ready backend",
                    "return one of the backends that `prepare` was given",
                )
    except OperatorError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        raise _failed(step, error) from None


def _made(name: str, policy: UserClass, context: Context) -> Picker:
    """The policy ``name`` of a service in a worker; raises ``OperatorError``."""
    try:
        return policy(**context.keywords())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        failed = _failed(_MAKING, error)
        raise OperatorError(f"policy `{name}`: {failed.what}", failed.remedy) from None


def _failed(step: str, error: BaseException) -> OperatorError:
    remedy = "see docs/policies.md for an example"
    if step == _MAKING:
        remedy = (
            "the constructor is called as Class(service=..., worker=..., seed=...); take **context"
        )
    return OperatorError(f"{step} raised {describe_error(error)}", remedy)
