"""Answers the current state of an asset, read from ksqlDB's table of data items."""
