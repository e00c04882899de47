"""``lmft compare``: finished runs beside each other."""
