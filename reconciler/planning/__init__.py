"""From the observation to the plan. Pure."""
