"""The evidence as one HTML file that anyone can open."""
