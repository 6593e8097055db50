"""Single steps and studies of one network."""
