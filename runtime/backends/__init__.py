"""Where moves are computed: one file per backend, found by name, its library imported when it is opened and not before."""
