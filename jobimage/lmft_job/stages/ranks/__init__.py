"""A run of several processes: where they meet, and what they then do as one."""
