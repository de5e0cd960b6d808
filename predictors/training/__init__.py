"""One trainer: short trainings and full trainings."""
