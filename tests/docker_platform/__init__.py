"""Plain containers as a platform, on a real engine without using its Swarm."""
