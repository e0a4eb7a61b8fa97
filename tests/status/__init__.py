"""The status page, from what it decides to what a browser shows."""
