"""What may be built: spaces of configs, the FasterNet family and its torch network."""
