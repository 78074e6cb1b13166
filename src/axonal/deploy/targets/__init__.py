"""Targets: what a graph is run on, checked for and priced on; a file each, and a row in `TARGETS`.

A target says how well it is known, refuses a graph node by node with reasons, and otherwise runs it
and yields `Counts`, which `energy` prices. `axonal.testing.check_target` holds all to that.
"""

from collections.abc import Mapping

from .base import Evidence, Result, Target
from .engine import Cpu
from .null import Null
from .reference import Reference

__all__ = ["TARGETS", "Evidence", "Result", "Target"]

TARGETS: Mapping[str, Target] = {target.name: target for target in (Reference(), Cpu(), Null())}
