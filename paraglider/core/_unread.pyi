# The compiled twin has the interface of the interpreted one.
from collections.abc import MutableSequence

from paraglider.core.journal import Journal
from paraglider.core.unread import IdentitySet

def sort_records(
    journal: Journal,
    first: memoryview,
    after: memoryview,
    long: IdentitySet,
    factors: MutableSequence[int],
    by_client: bool,
    shift: int,
    highest: int,
    lowest: int,
) -> int: ...
