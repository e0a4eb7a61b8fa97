"""Properties that hold for everything that Hypothesis thinks of."""
