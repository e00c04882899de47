"""What the operator reasons about: facts of foreign objects, an attempt's plan, its verdict."""
