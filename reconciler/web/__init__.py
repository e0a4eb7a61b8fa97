"""The operator's HTTP server and status page."""
