"""Table tests of what paces and isolates the cycles."""
