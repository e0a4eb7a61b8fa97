"""The routing layer: a thin proxy that takes every client to the service of its asset's group.

It reads where groups are served from the registry that the operator publishes, and which group an asset is in from
ksqlDB; both are kept in memory, so that no request waits for either.
"""
