"""Leader election and the pause record."""
