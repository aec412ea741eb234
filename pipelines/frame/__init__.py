"""What every pipeline does around its stages: resolve, hold, count, grow, commit."""
