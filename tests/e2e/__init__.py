"""The whole system on a real Swarm, as `make demo` brings it up, beside whatever else runs there."""
