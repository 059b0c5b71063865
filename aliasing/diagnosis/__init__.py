"""How fragile anybody's network is under shifts, where it aliases, and what would help: ``aliasing.diagnose``."""

from .diagnosis import Diagnosis, diagnose
from .measuring import Curve, Portrait, Site
from .networks import Network, load

__all__ = ["Curve", "Diagnosis", "Network", "Portrait", "Site", "diagnose", "load"]
