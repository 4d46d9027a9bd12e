"""Reconcilers: compare what the store wants with what was applied, and apply the difference.

host            addresses, routes and rules, by the host helper      (``host``)
draining        removed backends, until their last flow ended      (``draining``)
"""
