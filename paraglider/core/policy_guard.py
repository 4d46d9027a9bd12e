"""A wrapper around a user's strategy that limits the damage of its faults.

Every new flow gets a ready backend: if the class raises, or returns anything but a ready backend,
the fallback picks. A class that fails or is slow STRIKES times in a row is benched: the fallback
picks for BENCH seconds, then the class is tried again, and one more failure benches it again. A
call cannot be interrupted: a class that never returns blocks its worker, and ``called`` has the
number of its service. The supervisor kills that worker, and its successor ``suspend``s the class:
the fallback picks until the suspension ends.
Rules: the clock is a parameter. Nothing is logged here; faults are counted, and ``error`` describes
the last one. No exception is stored, because its traceback would be a reference cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Final

from paraglider.core.pool import Backend
from paraglider.core.strategies import KINDS
from paraglider.core.strategies.base import NewFlow, Picker, Strategy

STRIKES: Final = 5
BENCH: Final = 30.0


class PolicyGuard(Strategy):
    """The strategy ``policy``; ``fallback`` picks when it fails.

    ``clock`` returns seconds, ``budget`` is the longest time of a pick in seconds. Counters:
    ``picked`` flows picked by the class, ``raised`` calls that raised, ``wrong`` results that are
    not a ready backend, ``slow`` picks over the budget (their result is used), ``spared`` flows for
    which the class was not called, ``benched`` times that it was benched. ``error`` describes the
    last fault.
    """

    name = "policy"
    summary = "a backend by a class of the operator's own"
    uses_seed = counts_flows = True
    kernel_note = "the kernel runs no Python"

    def __init__(
        self, policy: Picker, fallback: Strategy, clock: Callable[[], float], budget: float
    ) -> None:
        self._policy = policy
        self._fallback = fallback
        self._clock = clock
        self._budget = budget
        self._ready: dict[int, Backend] = {}
        self._prepared = False
        self._suspended = False
        self._strikes = 0
        self._until = 0.0
        self.picked = self.raised = self.wrong = self.slow = self.spared = self.benched = 0
        self.error = ""
        #: holds ``number`` during a call of the class, which may never return; otherwise 0
        self.called: list[int] | memoryview[int] = [0]
        self.number = 0

    def set_policy(self, policy: Picker) -> None:
        """Replace the wrapped strategy by ``policy``."""
        self._policy = policy
        self._prepared = False
        if self._ready and not self._suspended:
            self._prepare()

    def suspend(self, suspended: bool) -> None:
        """Stop calling the class (True), or resume; its ``prepare`` is then called first."""
        self._suspended = suspended
        self._prepared = False

    def shares(self, ready: tuple[Backend, ...]) -> dict[Backend, float | None]:
        """Unknown: None for every backend."""
        return dict.fromkeys(ready)

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """A fixed text; the policy is not called, because a call may change its state."""
        return "a class of the operator's own decides, which is not called here"

    @property
    def repeatable(self) -> bool:
        """See ``Strategy``: the class says so by an attribute ``hashes`` that is True."""
        return getattr(self._policy, "hashes", False) is True

    @property
    def faults(self) -> int:
        """The number of faults so far."""
        return self.raised + self.wrong + self.slow

    def counts(self) -> dict[str, int]:
        """The counters by name."""
        names = ("picked", "raised", "wrong", "slow", "spared", "benched")
        return {name: getattr(self, name) for name in names}

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Prepare the class and the fallback; the class never gets an empty pool."""
        self._fallback.prepare(ready)
        self._ready = {id(backend): backend for backend in ready}
        self._prepared = False
        if ready and not self._suspended:
            self._prepare()

    def pick(self, flow: NewFlow) -> Backend:
        """The backend that the class picks if it is ready, otherwise the fallback's."""
        if self._suspended or flow.now < self._until:
            self.spared += 1
            return self._fallback.pick(flow)
        if not self._prepared and not self._prepare():
            self._bench(flow.now)
            return self._fallback.pick(flow)
        backend = None
        start = self._clock()
        self.called[0] = self.number
        try:
            answer = self._policy.pick(flow)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the flow needs a backend
            self._record_error(error, "pick")
        else:
            backend = self._ready.get(id(answer))
            if backend is None:
                self.wrong += 1
                self.error = f"pick returned {type(answer).__name__}, no ready backend"
        self.called[0] = 0
        took = self._clock() - start
        if backend is not None:
            self.picked += 1
            if took <= self._budget:
                self._strikes = 0
                return backend
            self.slow += 1
            self.error = f"pick took {took * 1000:.1f} ms"
        self._strikes += 1
        if self._strikes >= STRIKES:
            self._bench(flow.now)
        return self._fallback.pick(flow) if backend is None else backend

    def _prepare(self) -> bool:
        self.called[0] = self.number
        try:
            self._policy.prepare(tuple(self._ready.values()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a change of backends goes on
            self._record_error(error, "prepare")
            return False
        finally:
            self.called[0] = 0
        self._prepared = True
        return True

    def _record_error(self, error: BaseException, method: str) -> None:
        self.raised += 1
        self.error = f"{method} raised {describe_error(error)}"

    def _bench(self, now: float) -> None:
        self.benched += 1
        self._until = now + BENCH


def kind(strategy: str) -> type[Strategy]:
    """The class of the strategy with that name; of a policy (module:Class) the guard around it."""
    return KINDS.get(strategy, PolicyGuard)


def describe_error(error: BaseException) -> str:
    """An error of a user's code in one line: the error, and the user's line that led to it."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - even its text is the user's code
        text = ""
    what = type(error).__name__ + (f": {text[:200]}" if text else "")
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    while trace is not None and _imports(trace.tb_frame):
        trace = trace.tb_next
    if trace is None:
        return what
    return f"{what} at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _imports(frame: FrameType) -> bool:
    """Whether a frame belongs to the import of the user's code: importlib, or a frame that sets
    ``__tracebackhide__`` (pytest).
    """
    return "importlib" in frame.f_code.co_filename or "__tracebackhide__" in frame.f_locals
