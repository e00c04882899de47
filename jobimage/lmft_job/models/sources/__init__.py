"""A model's folder from any source: fetched, reduced to permitted content, and parsed in a confined process."""
