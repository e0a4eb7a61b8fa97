"""Simulates a factory: maps assets to workcenters and inserts their events, through ksqlDB's REST API alone."""
