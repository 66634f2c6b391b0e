"""The subcommands of `bcm-edge`, one file per theme. Each imports its room when it runs, so that --help needs click alone."""
