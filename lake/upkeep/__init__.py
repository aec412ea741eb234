"""Is a lake whole, and what in it is garbage?"""
