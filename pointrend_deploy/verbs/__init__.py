"""What the command line does, one module a verb, for calling from Python as well."""
