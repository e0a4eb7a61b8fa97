"""Serves the asset events of one group as server-sent events, each with an id from which a client resumes."""
