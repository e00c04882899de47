"""A model's folder from anywhere: fetched, reduced to what may be read, and parsed in a confined process."""
