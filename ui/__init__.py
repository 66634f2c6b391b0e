"""The browser interface of a bundle: a page, served from this machine, on which the tasks can be tried."""
