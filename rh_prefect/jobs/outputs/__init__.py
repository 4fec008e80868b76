"""What a paid job brings home: its files, each published in one step, and the manifest that remembers them."""
