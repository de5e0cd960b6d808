"""What becomes of the winners: full training, export, and the final check of the budget."""
