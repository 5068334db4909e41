"""Builds the companion firmware, and describes what a build left: images, partition table, sdkconfig."""
