"""Helpers for all modules: torch's global state, files, regions, warnings, private imports of scikit-learn."""
