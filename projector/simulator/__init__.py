"""Seeded, realistic traffic for a running receiver, and a check of the resulting groups.

A `Life` generates the callbacks of one group, and the state that must follow from them by rules of its own. `Traffic`
merges many lives, and makes callbacks repeated, late and untimed, as they arrive in production.
"""

from projector.simulator.check import Difference
from projector.simulator.connection import Unreachable
from projector.simulator.options import Options
from projector.simulator.queries import OtherGroups
from projector.simulator.simulation import Report, simulate

__all__ = ["Difference", "Options", "OtherGroups", "Report", "Unreachable", "simulate"]
