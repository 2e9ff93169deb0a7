"""Tasks that come with autocut."""
