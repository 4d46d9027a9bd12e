"""A user's own strategy, kept from doing harm: timed, checked, and set aside while it fails.

Whatever the class does, every new flow gets a ready backend: where it raises, or returns what is
no ready backend, the fallback picks. A class that fails or is slow STRIKES times in a row is
benched: the fallback picks for BENCH seconds, then the class is tried again, and one more failure
benches it again. A call cannot be interrupted: one that never returns stops its worker, and
``called`` says which one it is. Who ends that worker has the next one ``suspend`` the class: then
the fallback picks until it is taken back.
Rules: the clock is a parameter. Nothing is logged here; what happened is counted, and ``error``
says it in words. No exception is kept, since its traceback would be a cycle that nobody collects.
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
    """The strategy ``policy``, with ``fallback`` in its place when it fails.

    ``clock`` gives seconds, ``budget`` is how many of them a pick may take. Counters: ``picked``
    flows by the class itself, ``raised`` calls that raised, ``wrong`` picks of no ready backend,
    ``slow`` picks over the budget (used all the same), ``spared`` flows that were not asked
    about, ``benched`` how often it was set aside. ``error`` describes the last failure.
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
        #: where ``number`` stands while the class is called, which may never return
        self.called: list[int] | memoryview[int] = [0]
        self.number = 0

    def become(self, policy: Picker) -> None:
        """``policy`` picks from here on."""
        self._policy = policy
        self._prepared = False
        if self._ready and not self._suspended:
            self._prepare()

    def suspend(self, suspended: bool) -> None:
        """Whether the class is not to be called at all; where it is again, it is told first."""
        self._suspended = suspended
        self._prepared = False

    def shares(self, ready: tuple[Backend, ...]) -> dict[Backend, float | None]:
        """Nothing is known of them."""
        return dict.fromkeys(ready)

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """That the policy is not called: it may count."""
        return "a class of the operator's own decides, which is not called here"

    @property
    def faults(self) -> int:
        """Everything that went wrong so far."""
        return self.raised + self.wrong + self.slow

    def counts(self) -> dict[str, int]:
        """The counters by name."""
        names = ("picked", "raised", "wrong", "slow", "spared", "benched")
        return {name: getattr(self, name) for name in names}

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Tell the class and the fallback; the class is never shown an empty pool."""
        self._fallback.prepare(ready)
        self._ready = {id(backend): backend for backend in ready}
        self._prepared = False
        if ready and not self._suspended:
            self._prepare()

    def pick(self, flow: NewFlow) -> Backend:
        """The class's backend if it gives one that is ready, else the fallback's."""
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
            self._raised(error, "pick")
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
            self._raised(error, "prepare")
            return False
        finally:
            self.called[0] = 0
        self._prepared = True
        return True

    def _raised(self, error: BaseException, method: str) -> None:
        self.raised += 1
        self.error = f"{method} raised {describe(error)}"

    def _bench(self, now: float) -> None:
        self.benched += 1
        self._until = now + BENCH


def kind(strategy: str) -> type[Strategy]:
    """The class of the strategy with that name; of a policy (module:Class) the guard around it."""
    return KINDS.get(strategy, PolicyGuard)


def describe(error: BaseException) -> str:
    """An error of a user's code in one line: what, and the first line of his that led to it."""
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
    """Whether a frame is of who imports the user's code: Python, or one that says so (pytest's
    ``__tracebackhide__``).
    """
    return "importlib" in frame.f_code.co_filename or "__tracebackhide__" in frame.f_locals
