"""For processes with this folder on PYTHONPATH: the versions that the projections had in 0.1.0.

Since then their rows are bounded, and differ for values beyond the limits only. Frozen stores have none, so the frozen
read models can be served, compared and rolled back to as if they were this version's own.
"""

from projector.projection.membership import MembershipProjection
from projector.projection.profile import ProfileProjection

MembershipProjection.version = ProfileProjection.version = 1
