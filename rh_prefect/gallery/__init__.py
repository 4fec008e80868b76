"""A page of pictures, videos, sounds and texts that a storage's jobs and edits have made."""
