"""How good it is: cost, latency (measured or predicted) and accuracy before full training."""
