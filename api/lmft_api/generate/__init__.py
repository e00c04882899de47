"""Generated from the types: the CustomResourceDefinition and pages of the documentation."""
