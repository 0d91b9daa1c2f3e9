"""Who runs next, and where. In the parent; handler threads call in, the supervisor hands workers over."""
