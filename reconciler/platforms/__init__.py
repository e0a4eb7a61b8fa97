"""Deployment platforms: what runs the group services. Docker Swarm is the default."""
