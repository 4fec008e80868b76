"""One paid job: its records, its states, and the code that runs it."""
