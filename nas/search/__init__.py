"""What to try next: the loop, and the searchers that propose."""
