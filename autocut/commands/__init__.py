"""The verbs of the command line. A verb imports its libraries when it runs, so that `autocut --help` is instant."""
