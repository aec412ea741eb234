"""Conversations: messages and tools, as a chat template writes them."""
