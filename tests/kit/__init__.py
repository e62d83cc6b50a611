"""Helpers that tests share: worlds, clocks and daemons that are played, and real ones that are run."""
