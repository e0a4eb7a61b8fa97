"""Tests over sockets and real processes."""
