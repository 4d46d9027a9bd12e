"""Policies: strategies of the user's own, whose code never runs with root's rights.

Lives here: ``load``, which turns each `strategy: package.module:Class` of a configuration into
an entry of the registry, behind a guard (``core.policy_guard``), and ``begin``, by which the
process that uses the registry imports them.
Rules: who loads reads the files (``snapshot``) and imports nothing. A child process, as the user of
the workers and without any capability, tries each class out before anything starts, and says what
is wrong with it, for the operator to read with the line of the configuration that names it. Each
worker then imports the same text for itself, as that user, before it is locked in: what a policy
imports lazily is there by then, and a file that changes changes nothing until the next start.
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
from paraglider.core.policy_guard import Guard, describe
from paraglider.core.pool import Backend
from paraglider.core.strategies import STRATEGIES, Context, Factory, NewFlow, Registry, Strategy
from paraglider.core.strategies.base import Picker, UserClass
from paraglider.core.strategies.rr import RoundRobin
from paraglider.errors import OperatorError
from paraglider.forward.load import LoadedConfig
from paraglider.forward.services import make_backends
from paraglider.host import trust
from paraglider.host.snapshot import Snapshot

#: the directory beside the configuration file, where that names no other
BESIDE: Final = "policies"

#: seconds that all policies may take to be tried out
PATIENCE: Final = 30.0
_LONGEST: Final = 1 << 20

#: what is wrong with a policy and what would be right; None where nothing is
_Fault = tuple[str, str] | None

_MAKING: Final = "its constructor"
_METHODS: Final = {"prepare": "def prepare(self, ready)", "pick": "def pick(self, flow)"}
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}
# Addresses for documentation (RFC 5737, RFC 3849): no client has them.
_CLIENTS: Final = {4: bytes((192, 0, 2, 1)), 6: bytes.fromhex("20010db8" + "00" * 11 + "01")}
_CLIENT_PORT: Final = (49152).to_bytes(2, "big")


#: is told whose policy is called next
Begins = Callable[[str], object]


def _unheard(_service: str) -> None:
    """For who need not know which policy never returns."""


class _Waiting:
    """Stands for a policy that was not imported yet."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """See ``Strategy``."""

    def pick(self, flow: NewFlow) -> Backend:
        """See ``Strategy``; the guard has the next in turn."""
        raise RuntimeError("it is not imported")


class Policies(dict[str, Factory]):
    """A registry with the policies of ``services``, from ``files`` in ``directory``; a pick may
    take ``budget`` seconds.
    """

    def __init__(
        self, services: Sequence[Service], directory: Path, files: Snapshot, budget: float
    ) -> None:
        super().__init__(STRATEGIES)
        self._services = services
        self._directory = directory
        self._files = files
        self._classes: dict[str, UserClass] | None = None
        self._made: list[tuple[str, Context, Guard]] = []  # before ``begin``
        self._guards: WeakKeyDictionary[Guard, str] = WeakKeyDictionary()
        self._suspended: frozenset[str] = frozenset()
        for service in services:
            self[service.strategy] = partial(self._create, service.strategy, budget)

    def suspend(self, services: Iterable[str]) -> None:
        """Have no class called for ``services``, and all others for theirs: the next in turn picks,
        in what is at work and in what is made later.
        """
        self._suspended = frozenset(services)
        for guard, service in self._guards.items():
            guard.suspend(service in self._suspended)

    def tried(self, begins: Begins = _unheard) -> list[_Fault]:
        """Import the class of each service, and try it out, unless it is suspended; what is wrong
        with each.
        """
        found: dict[str, UserClass] = {}
        faults: list[_Fault] = []
        with self._files.importable():
            for service in self._services:
                begins(service.name)
                try:
                    policy = _find(service.strategy, self._directory, self._files)
                    if service.name not in self._suspended:
                        _try(policy, service)
                except OperatorError as error:
                    faults.append((error.what, error.remedy))
                else:
                    found[service.strategy] = policy
                    faults.append(None)
            begins("")
        self._classes = found
        return faults

    def begin(self, begins: Begins = _unheard) -> list[str]:
        """Import the classes, and have them pick where they were asked for already; what failed.

        Where one fails, which the trial did not, the next in turn picks.
        """
        faults = zip(self._services, self.tried(begins), strict=True)
        failed = [f"policy `{service.strategy}`: {fault[0]}" for service, fault in faults if fault]
        for name, context, guard in self._made:
            try:
                if self._classes and name in self._classes:
                    guard.become(_made(name, self._classes[name], context))
            except OperatorError as error:
                failed.append(str(error))
        self._made.clear()
        return failed

    def _create(self, name: str, budget: float, context: Context) -> Strategy:
        """The policy ``name`` of a service in a worker, behind its guard."""
        policy: Picker = _Waiting()
        if self._classes is not None and name in self._classes:
            policy = _made(name, self._classes[name], context)
        guard = Guard(policy, RoundRobin(context.worker), time.perf_counter, budget)
        guard.suspend(context.service in self._suspended)
        self._guards[guard] = context.service
        if self._classes is None:
            self._made.append((name, context, guard))
        return guard


def has_policies(registry: Registry) -> bool:
    """Whether ``registry`` has code of the operator's own."""
    return isinstance(registry, Policies)


def begin(registry: Registry, begins: Begins = _unheard) -> list[str]:
    """Import the policies of ``registry``, if it has any, in this process; what failed. ``begins``
    is told whose is next, by the service's name, and of the end by an empty one.
    """
    return registry.begin(begins) if isinstance(registry, Policies) else []


def suspend(registry: Registry, services: Iterable[str]) -> None:
    """Have the next in turn pick for ``services``, and for no others, where the strategy is a
    policy of ``registry``; what is forked from here on has it so too.
    """
    if isinstance(registry, Policies):
        registry.suspend(services)


def begin_as(user: str, registry: Registry) -> None:
    """As ``begin``, with the effective ids of ``user`` meanwhile, if this is root, for a command
    that goes on with its own. Raises ``OperatorError`` with what failed.
    """
    root = os.geteuid() == 0 and has_policies(registry)
    if root:
        found = pwd.getpwnam(user)
        os.setegid(found.pw_gid)
        os.seteuid(found.pw_uid)
    try:
        for failure in begin(registry):
            raise OperatorError(failure, "try again: it was right a moment ago")
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)


def load(loaded: LoadedConfig) -> Registry:
    """The registry of strategies with every policy that ``loaded`` names; ``begin`` imports them.

    Raises ``ConfigError`` with a line for each service whose policy cannot be loaded, or fails
    when a process without rights tries it.
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
    registry = Policies(services, directory, files, config.policies.budget_ms / 1000)
    faults = _faults(registry, len(services), config)
    loaded.refuse(
        Problem(place, f"policy `{service.strategy}`: {fault[0]}", fault[1])
        for (place, service), fault in zip(policies, faults, strict=True)
        if fault is not None
    )
    return registry


def _faults(registry: Policies, count: int, config: Config) -> list[_Fault]:
    """What a process without rights finds wrong with each of ``count`` policies."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # nothing of it may go on as the parent
            os.close(reading)
            _give_up(config)
            found = json.dumps(registry.tried()).encode()
            while found:
                found = found[os.write(writing, found) :]
        os._exit(0)
    os.close(writing)
    said, deadline = bytearray(), time.monotonic() + PATIENCE
    while select.select([reading], [], [], max(deadline - time.monotonic(), 0.0))[0]:
        more = os.read(reading, 65536)
        said += more
        if not more or len(said) > _LONGEST:
            break
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        return [
            None if fault is None else (str(fault[0]), str(fault[1])) for fault in json.loads(said)
        ]
    except ValueError:
        what = f"the process that tries it out ended, or took longer than {PATIENCE:g} s"
        return [(what, "have it do less when it is imported and made")] * count


def _give_up(config: Config) -> None:
    """Be the user of ``config`` without a capability, if this is root."""
    if os.geteuid() == 0:
        from paraglider.host import privileges  # which needs prctl: nobody else here does

        found = pwd.getpwnam(config.user)
        privileges.drop(found.pw_uid, found.pw_gid, "/", keep=())


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise OperatorError(
            f"there is no directory {directory} to load policies from",
            "make it, or name another as `path` under `policies`",
        )
    found = trust.untrusted(directory) if os.geteuid() == 0 else None
    if found is not None:
        raise OperatorError(*found)


def _find(name: str, directory: Path, files: Snapshot) -> UserClass:
    """The class that ``name`` (package.module:Class) stands for."""
    module_name, _, class_name = name.partition(":")
    file = directory / (module_name.replace(".", "/") + ".py")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(f"importing {file}", error) from None
        raise OperatorError(
            f"there is no {file}", "put the module there, or name its directory under `policies`"
        ) from None
    except SyntaxError as error:
        what = f"{error.filename}:{error.lineno}: {error.msg}"
        raise OperatorError(what, "correct the line") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        raise _failed(f"importing {file}", error) from None
    if not files.has(module):
        raise OperatorError(
            f"there is another module `{module_name}`, which hides {file}",
            "give the module a name of its own",
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
    """Make the class, and have it pick a backend for a flow of each protocol of ``service``."""
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
                    f"pick returned {type(answer).__name__}, no ready backend",
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
        remedy = "it is made as Class(service=..., worker=..., seed=...); take **context"
    return OperatorError(f"{step} raised {describe(error)}", remedy)
