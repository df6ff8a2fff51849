"""Key material and the life of a key: the type that hides its bits, and the one table of states.

Sans-IO: nothing here stores or sends.
"""
