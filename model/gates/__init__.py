"""Gates: what a trained model has to be asked before it is given out, of its weights alone."""
