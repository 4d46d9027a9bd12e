"""`forward: offload`: the worker decides, connection tracking carries the flow."""
