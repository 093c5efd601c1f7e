"""Commands that are killed at any moment go on where they were, and end as if they had not been."""
