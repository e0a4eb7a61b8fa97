"""Table tests of the grouping strategies."""
