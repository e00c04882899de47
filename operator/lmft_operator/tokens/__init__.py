"""Token reviews and authorization by the API server: cached and rate-limited, so that strangers cannot exhaust them."""
