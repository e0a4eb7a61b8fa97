"""Framing, connections and names of services."""
