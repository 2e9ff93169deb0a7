"""From a front to something that runs elsewhere: select a point, write its bundle, verify it in a fresh process."""
