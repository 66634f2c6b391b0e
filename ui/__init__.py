"""A window on a bundle: a small page in the browser, served from this machine, where every task can be tried by hand."""
