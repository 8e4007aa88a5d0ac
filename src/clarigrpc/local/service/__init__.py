"""What every call passes before its handler: dispatch, user limits, retired options."""
