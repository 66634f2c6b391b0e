"""The commands of `bcm-edge`, one file per subject.

A command imports what it needs when it runs, so --help needs only click.
"""
