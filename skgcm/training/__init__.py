"""The skorch net that trains, and what a step is made of."""
