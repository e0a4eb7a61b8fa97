"""The values of the domain. Pure; imports nothing of the operator."""
