"""What a recipe of training stages means: its fields, the versions they name, what it would take."""
