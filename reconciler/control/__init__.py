"""The control loop: observe, survey, guards, plan, apply."""
