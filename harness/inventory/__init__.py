"""The boards a lab has: `boards.yaml`, checked, with errors that name file, line and field."""
