"""The operator: keeps ksqlDB streams and Swarm services equal to the groups of the UNS map."""

__version__ = "0.1.0"
