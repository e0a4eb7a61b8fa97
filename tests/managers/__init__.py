"""Three managers of one Swarm on one machine, and what becomes of the operator when some of them fail."""
