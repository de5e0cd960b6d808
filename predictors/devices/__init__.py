"""Where networks are timed: each device answers `measure` with a latency and its interval."""
