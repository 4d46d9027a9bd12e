"""The configuration file: from its text to immutable objects, or to every mistake at once.

types      small values (ports, addresses, exempt endpoints) and how each is parsed
model      the sections of the file as pydantic models; ``Config`` is the whole
service    those of a service and its backends
method     a forwarding method as the configuration sees it; ``forward.registry`` lists them
diagnostics
           a mistake and its place: ``Problem``, ``Path``, ``Marks``, ``ConfigError``
source     a file's bytes → its text
reader     YAML text → plain data with the place of every key
messages   pydantic's findings in the words of the file
check      contradictions between fields and between services; interfaces of the host
           (``check_health``, ``check_shared``: one kind of contradiction each; what concerns one
           forwarding method is in its folder, ``forward.dsr.checks``)
advice     warnings: valid, and probably not meant
listing    a file of backends, one a line
sources    services whose backends are listed elsewhere
load       file → ``Config``; other packages call ``forward.load``, which knows the methods
importers  the configurations of other balancers, as ours

A *path* is the way from the root of the file to a value (``("services", 0, "vip")``); a *mark*
is its line and column.
"""
