"""A deliberate bug in each guard, and the test that dies of it: `python -m tests.mutations`."""
