"""The network between a board and its OTA server: joined, addressed, and proven before anything is erased."""
