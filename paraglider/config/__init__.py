"""The configuration file: from its text to immutable objects, or to every mistake at once.

types      small values (ports, addresses, exempt endpoints) and how each is parsed
model      the sections of the file as pydantic models; ``Config`` is the whole
problem    a mistake and its place: ``Problem``, ``Path``, ``Marks``, ``ConfigError``
source     a file's bytes → its text
document   YAML text → plain data with the place of every key
messages   pydantic's findings in the words of the file
validate   contradictions between fields and between services; interfaces of the host
           (``validate_health``, ``validate_shared``, …: one kind of contradiction each)
advice     warnings: valid, and probably not meant
meaning    what a service's forward means for it, in one sentence
listing    a file of backends, one a line
sources    services whose backends are listed elsewhere
load       file → ``Config``; the module that other packages call
import_    the configurations of other balancers, as ours
schema     the JSON Schema of the file, for editors

A *path* is the way from the root of the file to a value (``("services", 0, "vip")``); a *mark*
is its line and column.
"""
