"""Tests that need a Docker engine in Swarm mode."""
