"""The local fleet: every part of a real one, on loopback, under one directory and one supervisord."""
