"""One client's stream: what it opens, sends and is answered."""
