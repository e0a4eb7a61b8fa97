"""The operator: keeps ksqlDB streams and Swarm services equal to the groups of the UNS map."""

from openfactory_common import __version__

__all__ = ["__version__"]
