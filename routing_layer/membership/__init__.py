"""Which group each asset is in: kept equal to ksqlDB's table, in memory."""
