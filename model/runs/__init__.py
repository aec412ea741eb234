"""What is read out of finished and running trainings: their curves, and the learning rate that small ones call for."""
