"""The command line: what `fasternas` parses, calls and prints."""
