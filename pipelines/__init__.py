"""Datasets and training runs as assemblies: one config and one pipeline each. Notable choices:

- this floor says *what* is made; `stages` says how, `lake` where, `orchestration` when;
- nothing is imported here, so that a pipeline loads only what it uses.
"""
