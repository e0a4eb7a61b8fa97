"""Tests without sockets, processes of ours, or an engine."""
