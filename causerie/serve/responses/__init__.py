"""v1/responses: answers as items, plain, streamed or in the background, continued from one another."""
