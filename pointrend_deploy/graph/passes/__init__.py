"""Small passes over an exported graph, one a module, each 'before -> after' in its docstring."""
