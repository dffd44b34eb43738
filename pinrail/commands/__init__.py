"""One module for each group of commands; each only parses, calls one part, and prints."""
