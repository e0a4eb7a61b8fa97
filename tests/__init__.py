"""Tests: unit, property, contract, faults, swarm, end to end."""
