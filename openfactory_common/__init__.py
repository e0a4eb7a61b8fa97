"""What the programs agree on: the registry document, errors, ksqlDB's wire format, kinds of settings, logs and text."""

__version__ = "0.1.0"
