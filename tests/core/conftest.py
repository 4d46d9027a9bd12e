"""Makes ``packets``, the builders that the tests of the core share, importable by its name.

With ``--import-mode=importlib`` pytest puts no directory of tests on ``sys.path``; tables at the
head of a module need the builders when it is imported, which is before any fixture.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
