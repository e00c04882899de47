"""Where rows come from: the hub, files of four formats, and the split into training and held-out rows."""
