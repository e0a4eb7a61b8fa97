"""A ksqlDB-compatible development server: one process, in memory, for development and the demonstration only.

It speaks the REST API of ksqlDB 7.7 for the statements that this project sends, in the shapes recorded from a real
server. It is not ksqlDB: no Kafka behind it, no windows, one partition. `README.md` lists what differs.
"""
