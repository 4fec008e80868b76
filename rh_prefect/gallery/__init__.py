"""Writes a page of the pictures, videos, sounds and texts of a storage's jobs and edits."""
