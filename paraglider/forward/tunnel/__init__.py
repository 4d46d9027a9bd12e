"""`forward: tunnel`: the packet goes to the backend in an outer header; it answers itself."""
