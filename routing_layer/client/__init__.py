"""The clients' side: connections, requests, and the proxy's own responses."""
