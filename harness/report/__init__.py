"""What a run leaves for people and machines: claims, their evidence, the verdict."""
