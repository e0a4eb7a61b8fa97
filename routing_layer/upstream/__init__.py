"""The way to the services behind the proxy, and the way of their bytes to the clients."""
