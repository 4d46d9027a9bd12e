"""The codes of check results, as in HAProxy (management guide, §9.1, `check_status`).

Lives here: ``Code``. The probe returns the code.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """The result of a check: the layer, and OK, TOUT (timed out) or the kind of error there."""

    SOCKERR = "SOCKERR"  # it could not take place, for a cause on this host
    L4OK = "L4OK"  # the connection was accepted
    L4TOUT = "L4TOUT"
    L4CON = "L4CON"  # refused, or no route
    L6OK = "L6OK"  # TLS is established
    L6TOUT = "L6TOUT"
    L6RSP = "L6RSP"  # not TLS, or a certificate that is not valid
    L7OK = "L7OK"  # the answer is as expected
    L7TOUT = "L7TOUT"
    L7RSP = "L7RSP"  # no valid answer, or another text than expected
    L7STS = "L7STS"  # another status than expected
    PROCOK = "PROCOK"  # the program ended with 0
    PROCTOUT = "PROCTOUT"
    PROCERR = "PROCERR"  # it ended with another status
