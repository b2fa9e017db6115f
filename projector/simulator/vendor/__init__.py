"""A fake of the vendor: the groups that simulated traffic leads to, and the REST API that shows them."""
