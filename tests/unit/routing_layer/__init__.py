"""The routing layer: its parts, each alone."""
