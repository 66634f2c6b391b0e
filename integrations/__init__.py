"""Models of this package with the interface of other libraries. Each module needs its own extra."""
