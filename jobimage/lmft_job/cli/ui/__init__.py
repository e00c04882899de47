"""``lmft ui``: a page on this machine that lists runs, shows each while it trains and after, and compares them."""
