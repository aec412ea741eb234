"""Engines that answer problems: the project's own, a server that speaks OpenAI's API, batch files of a provider."""
