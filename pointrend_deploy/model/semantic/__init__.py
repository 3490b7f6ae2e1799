"""The semantic model: SemanticFPN, with PointRend where the recipe has a point head."""
