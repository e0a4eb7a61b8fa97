"""Coming from the system before this one."""
