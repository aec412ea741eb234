"""When and where: the `grist` command. Notable choices:

- a command is a thin skin: it asks a function of `lake` or `pipelines` and draws the answer, or prints it as JSON;
- nothing heavy is imported before the command that needs it runs, so `grist ls` answers at once;
- stdout has the answer and nothing else; messages and errors go to stderr.
"""
