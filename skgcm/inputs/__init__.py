"""What users pass -> arrays and labels."""
