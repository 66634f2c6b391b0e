"""Inside Triton's Python backend: the package's tasks as models of a server. A repository carries this package along as a zip."""
