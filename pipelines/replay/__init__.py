"""What other thresholds would keep, from the measures that a version stores: nothing is run again."""
