"""How tests and measurements start programs."""

from __future__ import annotations

#: The start of a command whose process ends with the one that started it, also when that is killed: no clean-up
#: depends on it.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
