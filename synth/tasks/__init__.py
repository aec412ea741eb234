"""Instruction data: conversations, mathematics, code, calls of tools."""
