"""What is written down about paid jobs, where, by whom and for which run: the truth about money."""
