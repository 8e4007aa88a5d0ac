"""What handlers share: kinds of resources, filters, patches, background work."""
