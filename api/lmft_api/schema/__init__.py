"""What the types are built with: their base, rules, patterns, and structural schemas."""
