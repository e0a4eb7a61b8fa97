"""Tokens, keys, grants and the gate."""
