"""The verbs of the command line. Each imports what it needs when it runs, so that `autocut --help` is instant."""
