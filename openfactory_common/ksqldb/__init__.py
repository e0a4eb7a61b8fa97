"""ksqlDB's wire format, what its errors mean, and the UNS levels that assets are grouped by."""
