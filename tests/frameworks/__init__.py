"""Real apps of other frameworks with our middleware around them, in an environment that has them."""
