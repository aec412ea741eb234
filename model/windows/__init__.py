"""Windows on their way into a step: dealt to ranks by what they cost, their images and clips made inputs."""
