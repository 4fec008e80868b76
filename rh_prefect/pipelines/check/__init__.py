"""Checks a file without its inputs: its names, types of references, parameters of models and edits, and steps."""
