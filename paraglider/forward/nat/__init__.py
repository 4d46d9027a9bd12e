"""`forward: nat`: the worker rewrites every packet of a flow."""
