"""The records of paid jobs, which decide what was paid for: their content, place, writer and run."""
