"""Both sides of the pipe: what the parent does to keep worker processes, and what a worker does."""
