"""Where rows come from: the hub, files of four formats, and which of them train."""
