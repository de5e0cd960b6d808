"""What is deployed: networks as files that runtimes load, checked against torch."""
