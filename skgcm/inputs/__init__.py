"""From the inputs of users to arrays and labels."""
