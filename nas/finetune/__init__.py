"""Full trainings of the networks that a search found."""
