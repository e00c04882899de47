"""What the operator reasons about: facts about Kubernetes objects, an attempt's plan, its verdict."""
