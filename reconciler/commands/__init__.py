"""The commands of the command line, a module a family; each registers its own parsers with ``add``."""
