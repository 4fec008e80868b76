"""Files: what they are, where they are kept, and the editing that a film needs."""
