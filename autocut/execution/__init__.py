"""What runs a search: the session, Ray Tune, and the processes that its jobs work in."""
