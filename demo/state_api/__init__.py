"""Serves the present state of assets, read from ksqlDB's table of data items by pull queries."""
