"""Forwarding: what each way of carrying packets needs to be built from the configuration.

    nat      every packet passes the worker and is rewritten    (``nat``)
    policy   a strategy of the user's own, loaded from a file   (``policies``)

The packet paths themselves are pure and live in ``core``.
"""
