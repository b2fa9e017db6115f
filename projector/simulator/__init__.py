"""Seeded, realistic traffic for a running receiver, and the check that its mirror shows what that traffic amounts to.

A `Life` tells the story of one group and keeps what the mirror must show of it, by rules of its own; `traffic` lets
many lives happen at once and has callbacks repeated, late and without their times, as they come in the field.
"""

from projector.simulator.check import Difference
from projector.simulator.connection import Unreachable
from projector.simulator.options import Options
from projector.simulator.simulation import Report, simulate

__all__ = ["Difference", "Options", "Report", "Unreachable", "simulate"]
