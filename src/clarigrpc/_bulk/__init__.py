"""Many items: batches, a window, order, retries item by item."""
