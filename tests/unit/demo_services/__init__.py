"""Tests of the demonstration services, and the server they run against."""
