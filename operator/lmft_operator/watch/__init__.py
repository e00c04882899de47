"""What is observed: watches and lists feed a cache, and a changed object asks for a look."""
