"""Real processes that get real signals, at many moments."""
