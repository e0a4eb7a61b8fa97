"""The proxy's resources: what a client's request goes through."""
