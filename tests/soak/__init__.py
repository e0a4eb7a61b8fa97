"""Many cycles with random faults from a seed: `python -m tests.soak --cycles 1000 --groups 50 --seed 7`."""
