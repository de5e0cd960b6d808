"""`fasternas bench`: many networks timed side by side."""
