"""Plain containers of one Docker engine."""
