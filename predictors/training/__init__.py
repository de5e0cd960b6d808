"""One trainer: short trainings, supernets and full trainings."""
