"""What belongs to the process: torch's global state, warnings, private imports of scikit-learn."""
