"""Generation: engines that answer problems, and the stage that asks them, wave after wave."""
