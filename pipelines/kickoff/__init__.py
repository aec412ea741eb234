"""A kickoff: many pipelines as one graph, from raw inputs to evaluated models, whatever of it was done before."""
