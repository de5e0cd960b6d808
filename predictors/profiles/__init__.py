"""Bundled device profiles, one folder each: measured tables and what was fitted to them."""
