"""Inputs: the sources of facts, each of which changes the store through the controller.

file        ``reload``, ``reload_queue``
health      ``health`` (checks and failover), ``passive_checks``
DNS, lists  ``sources``, ``startup_sources``, ``dns_cache``
policies    ``suspended_policies``
"""
