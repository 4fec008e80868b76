"""Writes pages of pictures, videos, sounds and texts, with links to the files."""
