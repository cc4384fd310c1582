"""v1/batches: many requests in a file, answered in the background, also across restarts of the server."""
