"""Who may read what: tokens, the keys that verify them, and what they grant (ADR 17)."""
