"""Will a run fit: what a device's memory has to hold, found on fake tensors, and what to do about it."""
