"""What to try next, on which machines, and what becomes of the winners; the command line."""
