"""One paid job: its records, its life, and what drives it."""
