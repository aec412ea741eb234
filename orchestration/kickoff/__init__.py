"""Where the nodes of a kickoff run, and how it is shown: in this process, in processes of their own, as jobs."""
