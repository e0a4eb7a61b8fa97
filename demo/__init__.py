"""Embedded parts for development and the demonstration: no part of a production installation."""
