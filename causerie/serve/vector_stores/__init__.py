"""v1/vector_stores: files cut into chunks that can be searched by their words."""
