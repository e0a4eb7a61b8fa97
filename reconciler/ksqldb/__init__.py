"""The one place that speaks to ksqlDB: wire format, HTTP client and the SQL of our topology."""
