"""A page for the lab: the rack live in a browser. It reads what runs leave on disk, and changes nothing."""
