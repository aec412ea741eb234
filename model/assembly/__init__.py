"""Models put together from parts: their shape, fresh parts beside stored ones, adapters added and merged."""
