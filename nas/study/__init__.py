"""What is on disk of a study, and what it was asked."""
