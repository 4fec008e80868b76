"""Builds the documentation's website: `make docs`."""
