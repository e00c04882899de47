"""Commands for runs that there are already, here and in a cluster."""
