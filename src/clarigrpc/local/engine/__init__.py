"""What handlers share: kinds of resources, filters, patches, search, background tasks."""
