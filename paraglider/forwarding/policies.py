"""Policies: strategies of the user's own, loaded from files before privileges go.

Lives here: ``load``, which turns each `strategy: package.module:Class` of a configuration into
an entry of the registry, behind a guard (``core.strategies.guard``).
Rules: a class is loaded once, by the parent, as root; workers inherit it, so a file that changes
later changes nothing until the next start. Each class is tried out before anything starts: what
it imports lazily is there before chroot, and what is wrong with it is the operator's to read,
with the line of the configuration that names it. Nothing is written, no bytecode either.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, cast

from paraglider.config.load import LoadedConfig
from paraglider.config.model import Service
from paraglider.config.problem import Problem
from paraglider.config.validate import STRATEGY_CLASS
from paraglider.core.flow import TCP, UDP
from paraglider.core.strategies import STRATEGIES, Context, Factory, NewFlow, Registry, Strategy
from paraglider.core.strategies.base import UserClass
from paraglider.core.strategies.guard import Guard, describe
from paraglider.core.strategies.rr import RoundRobin
from paraglider.errors import OperatorError
from paraglider.forwarding.services import make_backends
from paraglider.system import trust

#: the directory beside the configuration file, where that names no other
BESIDE: Final = "policies"

_MAKING: Final = "its constructor"
_METHODS: Final = {"prepare": "def prepare(self, ready)", "pick": "def pick(self, flow)"}
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}
# Addresses for documentation (RFC 5737, RFC 3849): no client has them.
_CLIENTS: Final = {4: bytes((192, 0, 2, 1)), 6: bytes.fromhex("20010db8" + "00" * 11 + "01")}
_CLIENT_PORT: Final = (49152).to_bytes(2, "big")


def load(loaded: LoadedConfig) -> Registry:
    """The registry of strategies with every policy that ``loaded`` names; runs their code.

    Raises ``ConfigError`` with a line for each service whose policy cannot be loaded, or fails
    when it is tried.
    """
    config = loaded.config
    registry: dict[str, Factory] = dict(STRATEGIES)
    policies = [
        (("services", index, "strategy"), service)
        for index, service in enumerate(config.services)
        if STRATEGY_CLASS.fullmatch(service.strategy)
    ]
    if not policies:
        return registry
    configured = config.policies.path
    directory = Path(configured or Path(loaded.file).absolute().parent / BESIDE)
    try:
        _check_directory(directory)
    except OperatorError as error:
        place = ("policies", "path") if configured else policies[0][0]
        loaded.refuse([Problem(place, error.what, error.remedy)])
    problems = []
    with _importable(directory):
        for place, service in policies:
            try:
                policy = _find(service.strategy, directory)
                _try(policy, service)
            except OperatorError as error:
                what = f"policy `{service.strategy}`: {error.what}"
                problems.append(Problem(place, what, error.remedy))
            else:
                budget = config.policies.budget_ms / 1000
                registry[service.strategy] = _guarded(service.strategy, policy, budget)
    loaded.refuse(problems)
    return registry


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise OperatorError(
            f"there is no directory {directory} to load policies from",
            "make it, or name another as `path` under `policies`",
        )
    found = trust.untrusted(directory) if os.geteuid() == 0 else None
    if found is not None:
        raise OperatorError(*found)


@contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Modules are looked for in ``directory`` first, and what an earlier load brought is gone."""
    for name, module in list(sys.modules.items()):
        if _is_in(module, directory):
            del sys.modules[name]
    importlib.invalidate_caches()
    path, no_bytecode = str(directory), sys.dont_write_bytecode
    sys.path.insert(0, path)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(path)
        sys.dont_write_bytecode = no_bytecode


def _is_in(module: ModuleType, directory: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(place).is_relative_to(directory) for place in places if place)


def _find(name: str, directory: Path) -> UserClass:
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
    if not _is_in(module, directory):
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
        strategy = policy(service=service.name, worker=0, seed=service.hash_seed)
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


def _guarded(name: str, policy: UserClass, budget: float) -> Factory:
    """What makes the policy of a service in a worker, behind its guard."""

    def create(context: Context) -> Strategy:
        try:
            made = policy(service=context.service, worker=context.worker, seed=context.seed)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
            failed = _failed(_MAKING, error)
            raise OperatorError(f"policy `{name}`: {failed.what}", failed.remedy) from None
        return Guard(made, RoundRobin(context.worker), time.perf_counter, budget)

    return create


def _failed(step: str, error: BaseException) -> OperatorError:
    remedy = "see docs/policies.md for an example"
    if step == _MAKING:
        remedy = "it is made as Class(service=..., worker=..., seed=...); take **context"
    return OperatorError(f"{step} raised {describe(error)}", remedy)
