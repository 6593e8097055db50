"""Runtimes: each builds engine files, opens them, runs and times them."""
