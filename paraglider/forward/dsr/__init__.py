"""`forward: dsr`: the packet keeps its addresses; the backend answers the client directly."""
